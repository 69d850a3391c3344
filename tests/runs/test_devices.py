"""One run over several devices: the same batches, masks and steps as on one device, and losses equal to rounding."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_WORDS, command
from disturbed import SETTINGS, StopAfter, assert_equal_to_rounding, content, make_request, runner, trained_by
from specs import spec_of
from sweeps import wait_until
from torch import nn

from metaformer_ablate.data.sampling import EpochBatches
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.freezing import BATCH_NORMS
from metaformer_ablate.models.metaformer import StochasticDepth
from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs import ranks as ranks_module
from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.runs.worker import execute
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.launchers.local import InProcess, launcher
from metaformer_ablate.system.devices import choose_devices
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tasks.classification.data.in_memory import ImageTensors, evaluation_loader
from metaformer_ablate.training.micro_batches import DROPOUTS, MicroBatches
from metaformer_ablate.training.optim import decayed_names

# Three epochs of 22 steps with all that draws at random, dropout too, and without batch norm.
SHARED: dict[str, Any] = {**SETTINGS, "model.norm": "mln", "model.head": "mlp", "model.head_dropout": 0.2}


def shared_spec(**train: Any) -> RunSpec:
    return spec_of({**SHARED, **{f"train.{key}": value for key, value in train.items()}}, words=TINY_WORDS)


@pytest.fixture(scope="module")
def one_device(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Record:
    return runner(tmp_path_factory.mktemp("one")).run(shared_spec())


@pytest.fixture(scope="module")
def in_parts(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Record:
    return runner(tmp_path_factory.mktemp("parts")).run(shared_spec(micro_batch=16))


@pytest.mark.slow
def test_two_devices_and_one_end_alike(one_device: Record, tmp_path: Path) -> None:
    """Two processes; 355 images to evaluate, which is odd."""
    told: list[Progress] = []
    spec = shared_spec(devices=2)
    assert execute(make_request(spec, tmp_path), StopRequest(), told.append) == RunResult(one_device.run_id, "recorded")
    record = Store(tmp_path).find(spec.run_id)
    assert_equal_to_rounding(record, one_device)
    assert record.history() != one_device.history()  # not even one bit of it would mean that nothing was shared
    assert record.data["device"] == f"2 x {one_device.data['device']}"
    assert told[-1].share == 1.0 and told[-1].epoch == 3 and told[-1].metrics == record.data["metrics"]
    assert (record.folder / "spec.yaml").read_bytes() == (one_device.folder / "spec.yaml").read_bytes()
    assert list(Claims(tmp_path).folder.iterdir()) == []


def test_a_batch_taken_in_parts_and_at_once_end_alike(one_device: Record, in_parts: Record) -> None:
    assert_equal_to_rounding(in_parts, one_device)
    assert in_parts.history() != one_device.history()
    assert in_parts.data["device"] == one_device.data["device"]


@pytest.mark.slow
@pytest.mark.parametrize("train", [{"devices": 2, "micro_batch": 8}, {"devices": 4}])
def test_more_ways_to_share_a_batch(train: dict[str, int], one_device: Record, tmp_path: Path) -> None:
    assert_equal_to_rounding(trained_by(shared_spec(**train), tmp_path), one_device)


@pytest.mark.slow
def test_a_comparator_of_timm_draws_alike(tmp_path: Path) -> None:
    """timm's own DropPath, and parameters that weight decay spares."""
    settings = {"model.timm": "deit_tiny_patch16_224", "data.image_size": 64, "model.drop_path": 0.3}
    small = {"train.batch_size": 256, "train.warmup_epochs": 0, "train.epochs": 1}
    one, two = (spec_of({**settings, **small, "train.devices": devices}) for devices in (1, 2))
    assert_equal_to_rounding(trained_by(two, tmp_path / "two"), trained_by(one, tmp_path / "one"))


@pytest.mark.parametrize(
    "steps", [pytest.param(9, marks=pytest.mark.slow), pytest.param(22, marks=pytest.mark.slow), 30]
)
def test_a_run_in_parts_that_was_stopped_ends_as_one_that_was_not(steps: int, in_parts: Record, tmp_path: Path) -> None:
    spec = shared_spec(micro_batch=16)
    with pytest.raises(Interrupted):
        runner(tmp_path).run(spec, RunOptions(stop=StopAfter(steps)))
    assert content(runner(tmp_path).run(spec)) == content(in_parts)


@pytest.mark.parametrize(
    ("before", "after"),
    [(16, None), pytest.param(None, 16, marks=pytest.mark.slow), pytest.param(32, 8, marks=pytest.mark.slow)],
)
def test_a_run_goes_on_with_other_parts(
    before: int | None, after: int | None, one_device: Record, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path).run(shared_spec(micro_batch=before), RunOptions(stop=StopAfter(30)))
    assert_equal_to_rounding(runner(tmp_path).run(shared_spec(micro_batch=after)), one_device)


# Ranks that are stopped, killed, or that fail


def under_way(order: RunRequest, stop: StopRequest, act: Any) -> RunResult:
    """Executes an order, and has `act` done with the ids of its ranks once it has made a step."""
    acted = threading.Event()

    def watch(progress: Progress) -> None:
        if not acted.is_set():
            acted.set()
            act(children())

    ended = execute(order, stop, watch)
    assert acted.is_set()
    return ended


def children() -> list[int]:
    """Processes of this one that are ranks, rank 0 first."""
    lines = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    ).stdout
    return [int(line.split()[0]) for line in lines.splitlines() if "metaformer_ablate.runs.rank" in line]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_and_the_order_again(rank: int, tmp_path: Path) -> None:
    """The record is, bit for bit, the one of as many devices that nobody disturbed."""
    spec = shared_spec(devices=2)
    undisturbed = trained_by(spec, tmp_path / "undisturbed")
    order = make_request(spec, tmp_path, checkpoint_seconds=0.0)
    ended = under_way(order, StopRequest(), lambda found: os.kill(found[rank], signal.SIGKILL))
    assert ended.outcome == "died" and f"device {rank} was killed by SIGKILL" in ended.text
    assert children() == []
    assert Store(tmp_path).read(spec.run_id) is None
    assert content(trained_by(spec, tmp_path)) == content(undisturbed)


@pytest.mark.slow
def test_ranks_that_are_stopped_save_their_place_together(one_device: Record, tmp_path: Path) -> None:
    spec, stop = shared_spec(devices=2), StopRequest()
    ended = under_way(make_request(spec, tmp_path), stop, lambda found: setattr(stop, "number", int(signal.SIGTERM)))
    assert ended == RunResult(spec.run_id, "stopped", "SIGTERM")
    assert [path.name for path in Store(tmp_path).folder(spec.run_id).iterdir()] == ["last.ckpt"]
    assert children() == []
    # On one device it goes on as well; its record says where it was trained.
    record = runner(tmp_path).run(shared_spec())
    assert_equal_to_rounding(record, one_device)
    assert record.data["device"] == "2 x {0}; then {0}".format(one_device.data["device"])


@pytest.mark.slow
def test_ranks_whose_parent_is_killed_end(tmp_path: Path) -> None:
    words = [f"{key}={json.dumps(value)}" for key, value in SHARED.items()]
    keys = {word.partition("=")[0] for word in words}
    words += [word for word in TINY_WORDS if word.partition("=")[0] not in keys] + ["train.epochs=300"]
    words = [word for word in words if word != "train.epochs=3"]
    arguments = command("run", "pooling_size", *words, "train.devices=2", "--workers", "0", "--device", "cpu")
    with open(tmp_path / "stderr.txt", "w") as said:
        sweep = subprocess.Popen(arguments, cwd=tmp_path, stderr=said, stdout=subprocess.DEVNULL)

    def at_work() -> list[str]:
        words = ["ps", "-ww", "-eo", "pid=,ppid=,args="]
        lines = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
        ours = [line.split(None, 2) for line in lines if "metaformer_ablate.runs.rank" in line]
        return [pid for pid, parent, _ in ours if parent == str(sweep.pid) or pid in seen]

    seen: list[str] = []
    wait_until(lambda: len(at_work()) == 2 or sweep.poll() is not None)
    seen = at_work()
    sweep.kill()
    sweep.wait()
    assert len(seen) == 2, (tmp_path / "stderr.txt").read_text()
    wait_until(lambda: not at_work())


@pytest.mark.slow
def test_a_run_that_diverges_on_devices_is_a_result(tmp_path: Path) -> None:
    record = trained_by(shared_spec(devices=2, lr=1e30, clip_grad=None), tmp_path)
    assert record.status == "diverged" and "not finite at step" in record.data["reason"]


class FakeRanks(ranks_module.RankProcesses):
    """Ranks that are small programs."""

    programs: tuple[str, ...] = ()

    def _start(self) -> list[subprocess.Popen]:
        begin = "import json, os, sys, time; sys.stdin.readline()\n"
        begin += "def tell(**of): print(json.dumps(of), flush=True)\n"
        return [
            subprocess.Popen([sys.executable, "-c", begin + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for code in self.programs
        ]


def ended_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *programs: str) -> RunResult:
    monkeypatch.setattr(FakeRanks, "programs", programs)
    monkeypatch.setattr("metaformer_ablate.runs.worker.RankProcesses", FakeRanks)
    monkeypatch.setattr(ranks_module, "GRACE_SECONDS", 1.0)
    return execute(make_request(shared_spec(devices=2), tmp_path), StopRequest())


RECORD = (
    "{'status': 'failed', 'reason': 'ValueError: first', 'metrics': None, 'data_fingerprint': None, 'seconds': 1.0, "
)
RECORD += "'params': 1, 'frozen_params': 0, 'macs': 1, 'device': 'cpu', 'versions': {}, 'git': {}}"
FAILS = f"tell(failed=dict(record={RECORD}, history=[], log='Traceback')); sys.exit(1)"


def test_the_first_failure_of_a_rank_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others fail of it, wait for ever, or are aborted by NCCL."""
    late = "time.sleep(0.5); " + FAILS.replace("first", "late")
    for other in (late, "time.sleep(60)", "time.sleep(0.5); os.abort()"):
        assert ended_with(monkeypatch, tmp_path, other, FAILS).outcome == "recorded"
        record = Store(tmp_path).find(shared_spec().run_id)
        assert record.data["reason"] == "ValueError: first"
        assert (record.folder / "log.txt").read_text() == "Traceback"
        Store(tmp_path).set_aside(record.run_id)


def test_a_rank_that_dies_without_a_word_has_died_whatever_the_others_say(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = ended_with(monkeypatch, tmp_path, FAILS, "time.sleep(0.3); os.kill(os.getpid(), 9)")
    assert ended.outcome == "died" and "device 1 was killed by SIGKILL" in ended.text
    ended = ended_with(monkeypatch, tmp_path, "time.sleep(60)", "os._exit(7)")
    assert ended.outcome == "died" and "exited with 7" in ended.text
    assert Store(tmp_path).ids() == []


def test_a_claim_that_is_lost_ends_the_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Long before they would end by themselves."""
    monkeypatch.setattr("metaformer_ablate.records.claims.Claim.lost", True, raising=False)
    monkeypatch.setattr("metaformer_ablate.records.claims.Claim.__init__", _init_lost)
    assert ended_with(monkeypatch, tmp_path, "time.sleep(900)", "time.sleep(900)").outcome == "busy"


def _init_lost(self: Any, claims: Any, run_id: str, generation: int, token: str, name: str) -> None:
    self.claims, self.run_id, self.generation, self.token, self.name = claims, run_id, generation, token, name
    self.progress, self._beat, self._end, self.lost = None, 0, threading.Event(), True
    self._thread = threading.Thread(target=lambda: None)


SRUN = """#!{python}
import os, subprocess, sys
options = dict(word[2:].split("=") for word in sys.argv[1:] if word.startswith("--") and "=" in word)
words = [word for word in sys.argv[1:] if not word.startswith("--")]
nodes, each = int(options["nodes"]), int(options["ntasks-per-node"])
assert int(options["ntasks"]) == nodes * each
step = {{"SLURM_NTASKS": str(nodes * each), "SLURM_NTASKS_PER_NODE": str(each), "SLURM_NODELIST": "127.0.0.1"}}
ranks = []
for rank in range(nodes * each):
    place = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % each), "SLURM_NODEID": str(rank // each)}}
    ranks.append(subprocess.Popen(words, env={{**os.environ, **step, **place}}, stdin=subprocess.PIPE))
for line in iter(sys.stdin.buffer.readline, b""):
    for rank in ranks:
        rank.stdin.write(line)
        rank.stdin.flush()
    if line.startswith(b"{{"):
        break
sys.exit(max(rank.wait() for rank in ranks))
"""


@pytest.mark.slow
def test_several_nodes_in_a_job_of_slurm(one_device: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for srun, which starts the tasks of both nodes here."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_NNODES", "2")
    assert_equal_to_rounding(trained_by(shared_spec(nodes=2), tmp_path / "results"), one_device)


# What cannot be shared


def test_execution_is_not_in_the_id_but_travels() -> None:
    spec = shared_spec(devices=2, nodes=2, strategy="ddp", micro_batch=4)
    assert spec.run_id == shared_spec().run_id and spec.to_dict() == shared_spec().to_dict()
    assert spec.cost_key() == shared_spec().cost_key()
    again = RunSpec.model_validate(json.loads(json.dumps(spec.with_execution())))
    assert again == spec
    assert (again.train.world, again.train.accumulation) == (4, 4)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["train.devices=3"], "train.devices is 3 and train.nodes is 1, which cannot share a batch of 32 evenly"),
        (["train.devices=2", "train.nodes=3"], "train.devices is 2 and train.nodes is 3, which cannot share"),
        (["train.micro_batch=3"], "train.micro_batch is 3 (a number); allowed: a divisor of the 32 images"),
        (["train.devices=2", "train.micro_batch=32"], "allowed: a divisor of the 16 images"),
        (["train.devices=0"], "train.devices is 0"),
        (["train.strategy=ddp"], "train.strategy is 'ddp' (a string); allowed on one device: auto"),
        (["train.strategy=dp", "train.devices=2"], "unknown strategy 'dp'"),
        (["train.nodes=2"], "train.nodes is 2; more than one node needs --launcher slurm"),
        (["train.devices=2", "train.strategy=fsdp"], "train.strategy is 'fsdp', which needs GPUs"),
        (["train.devices=2", "model.norm=batch_norm"], "has batch norm, which 2 devices have to synchronise"),
        (["train.micro_batch=16", "model.norm=batch_norm"], "train.micro_batch is 16, but the model of run "),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_trains(ablate: Any, words: list[str], found: str) -> None:
    result = ablate("run", "pooling_size", *words, "--device", "cpu")
    assert found in result.sentence


def test_batch_norm_of_a_comparator_is_refused_once_it_is_built(tmp_path: Path) -> None:
    spec = spec_of({"model.timm": "resnet18", "data.image_size": 32, "train.micro_batch": 16})
    check_hardware(spec, "cpu")
    with pytest.raises(RequestError, match="has batch norm, whose statistics"):
        runner(tmp_path).run(spec)


def test_batch_norm_that_does_more_is_refused_on_several_devices() -> None:
    from timm.layers import BatchNormAct2d

    from metaformer_ablate.models.norms import BatchNorm
    from metaformer_ablate.runs.trainer import has_batch_norm

    one, two = shared_spec().train, shared_spec(devices=2).train
    assert has_batch_norm(BatchNormAct2d(4), one) and has_batch_norm(BatchNorm(4, 1e-5, False), two)
    assert not has_batch_norm(nn.GroupNorm(1, 4), two)
    with pytest.raises(RequestError, match="the model has BatchNormAct2d, which 2 devices cannot synchronise"):
        has_batch_norm(BatchNormAct2d(4), two)


def public_kinds(base: type) -> list[type]:
    """torch.nn's own modules of a private class; those that are lazy become one of the others."""
    kinds = [kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, base)]
    return [kind for kind in kinds if not issubclass(kind, nn.modules.lazy.LazyModuleMixin)]


def test_every_batch_norm_and_dropout_of_torch_is_known() -> None:
    """Where this fails, torch has a module that `runs/trainer.py` or `training/micro_batches.py` has to name."""
    assert set(public_kinds(nn.modules.batchnorm._BatchNorm)) == set(BATCH_NORMS)
    assert set(public_kinds(nn.modules.dropout._DropoutNd)) == set(DROPOUTS)


def test_batch_norm_on_gpus_is_not_refused() -> None:
    spec = shared_spec(devices=2)
    check_hardware(spec, "cuda", batch_norm=True)
    with pytest.raises(RequestError, match="synchronise"):
        check_hardware(spec, "cpu", batch_norm=True)


def test_fsdp_computes_as_the_others_do() -> None:
    """As far as it can be told without a GPU: its shards are in fp32, its checkpoints whole."""
    from metaformer_ablate.runs.trainer import choose_strategy

    spec = shared_spec(devices=2, strategy="fsdp", precision="bf16")
    strategy: Any = choose_strategy(spec.train)
    kept = strategy.mixed_precision_config
    assert {kept.param_dtype, kept.reduce_dtype, kept.buffer_dtype} == {torch.float32}
    assert strategy._state_dict_type == "full"
    with pytest.raises(RequestError, match=r"train\.clip_grad is 1 and train\.strategy is 'fsdp'"):
        check_hardware(spec, "cuda")
    check_hardware(shared_spec(devices=2, strategy="fsdp", clip_grad=None), "cuda")
    with pytest.raises(RequestError, match=r"train\.optimizer is lamb and train\.strategy is 'fsdp'"):
        check_hardware(shared_spec(devices=2, strategy="fsdp", clip_grad=None, optimizer="lamb"), "cuda")


# The parts by themselves


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_parts_make_up_the_batch(count: int) -> None:
    images = torch.arange(24).view(12, 2)
    parts, taken = MicroBatches(count, nn.Identity(), 12), []
    for parts.at in range(count):
        taken.append(parts.take(images))
        if len(taken[-1]) % 2 == 0:  # each image of a part has its partner in the mix at the mirrored place
            assert torch.equal(taken[-1] + taken[-1].flip(0), images[:1].expand_as(taken[-1]) + images[-1:])
    assert {len(part) for part in taken} == {12 // count}
    assert torch.equal(torch.cat(taken).sort(0).values, images)


@pytest.mark.parametrize("count", [3, 4])
def test_masks_are_those_of_the_whole_batch(count: int) -> None:
    def net() -> nn.Module:
        return nn.Sequential(StochasticDepth(0.4), nn.Dropout(0.3), StochasticDepth(0.2)).train()

    x = torch.rand(12, 5, 2, 2) + 1
    torch.manual_seed(0)
    whole = net()(x)
    assert 0 < (whole == 0).sum() < whole.numel()
    shared = net()
    parts = MicroBatches(count, shared, 12)
    for parts.at in range(count):
        torch.manual_seed(0)
        assert torch.equal(shared(parts.take(x)), parts.take(whole))
    assert torch.equal(shared.eval()(x), x)


def test_each_batch_comes_once_for_every_part() -> None:
    device = torch.device("cpu")
    whole = list(EpochBatches(100, 8, 0, device, first_batch=3))
    repeated = EpochBatches(100, 8, 0, device, first_batch=3, repeats=2)
    assert len(repeated) == 24
    batches = list(repeated)
    assert len(batches) == 18 and all(torch.equal(batch, whole[i // 2]) for i, batch in enumerate(batches))


@pytest.mark.parametrize(("images", "shares"), [(355, 2), (355, 3), (7, 7), (64, 4), (1000, 3)])
def test_shares_of_an_evaluation_are_all_images_once_in_order(images: int, shares: int) -> None:
    data = ImageTensors(torch.arange(images), torch.arange(images))
    sizes, seen = [], []
    for share in range(shares):
        labels = [y for _, y in evaluation_loader(data, 100, share, shares)]
        assert labels and all(len(y) for y in labels)
        sizes.append(sum(len(y) for y in labels))
        seen += labels
    assert torch.cat(seen).tolist() == list(range(images))
    assert max(sizes) - min(sizes) <= 1


def test_weight_decay_is_told_by_names_where_shapes_are_lost() -> None:
    """fsdp flattens every parameter to one dimension before the optimiser is made."""
    from metaformer_ablate.training.optim import weight_decay_groups

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    names = decayed_names(net)
    assert names == {"0.weight"}
    before = [len(group["params"]) for group in weight_decay_groups(net, 0.1, names)]
    for p in net.parameters():
        p.data = p.data.flatten()
    assert [len(group["params"]) for group in weight_decay_groups(net, 0.1, names)] == before == [1, 3]


def test_devices_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_devices("cpu", 2) == [torch.device("cpu")] * 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_devices("auto", 2) == choose_devices("cuda:0,cuda:1", 2) == choose_devices("cuda", 2)
    assert choose_devices("cuda:2,cuda:3", 2) == [torch.device("cuda:2"), torch.device("cuda:3")]
    for option, count in (("cuda", 5), ("cuda:1", 2)):
        with pytest.raises(RequestError, match=f"train.devices is {count}"):
            choose_devices(option, count)


def test_workers_leave_each_run_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []
    monkeypatch.setattr(
        "metaformer_ablate.sweep.launchers.local.WorkerPool", lambda devices: made.append(list(devices))
    )
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.local.cores", lambda: 8)
    two, four = [shared_spec(devices=2)] * 9, [shared_spec(devices=4, threads=2)] * 9
    launcher(two, "cpu", StopRequest())
    launcher(four, "cpu", StopRequest())
    assert made == [["cpu"] * 4, ["cpu"]]
    gpus = [f"cuda:{i}" for i in range(5)]
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.local.devices_of", lambda option: gpus)
    made.clear()
    launcher(two, "cuda", StopRequest())
    launcher(two, "cuda", StopRequest(), workers=3)
    assert made == [["cuda:0,cuda:1", "cuda:2,cuda:3"], ["cuda:0,cuda:1", "cuda:2,cuda:3", "cuda:0,cuda:1"]]
    assert isinstance(launcher(two, "cuda", StopRequest(), workers=0), InProcess)
    with pytest.raises(RequestError, match=r"train\.devices is 8; allowed: at most 5"):
        launcher([shared_spec(devices=8)], "cuda", StopRequest())
