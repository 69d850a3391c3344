"""A run that is disturbed at any moment ends with the record of one that never was; checkpoints; claims."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import TINY_WORDS, command
from disturbed import SETTINGS, StopAfter, content, runner
from specs import fake_record, spec_of

from metaformer_ablate.records import claims as claims_module
from metaformer_ablate.records.checkpoints import DAMAGED, LAST, PREVIOUS, Checkpoints, is_whole
from metaformer_ablate.records.claims import Claims
from metaformer_ablate.records.record import Record, StoreError
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.options import ClaimLost, RunOptions
from metaformer_ablate.runs.request import RunRequest
from metaformer_ablate.runs.resume import rescale_batch_counts
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tasks.classification.data.in_memory import InMemoryData


def disturbed_spec(seed: int = 0, **settings: Any) -> RunSpec:
    return spec_of({**SETTINGS, **settings}, words=TINY_WORDS, seed=seed)


@pytest.fixture(scope="module")
def undisturbed(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Record:
    return runner(tmp_path_factory.mktemp("undisturbed")).run(disturbed_spec())


# The first step, the middle of an epoch, its last step but one, its last step, the evaluation after it (asked for at
# the epoch's end), the first step of another epoch, the last epoch's end.
@pytest.mark.parametrize("steps", [0, 9, 20, 21, 22, 23, 24, 47, 60, 66])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(steps: int, undisturbed: Record, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path).run(disturbed_spec(), RunOptions(stop=StopAfter(steps)))
    folder = Store(tmp_path).folder(disturbed_spec().run_id)
    assert sorted(path.name for path in folder.iterdir()) == [LAST]
    assert Store(tmp_path).read(disturbed_spec().run_id) is None
    resumed = runner(tmp_path).run(disturbed_spec())
    assert content(resumed) == content(undisturbed)
    assert not (resumed.folder / LAST).exists()


def test_lightning_counts_batches_where_a_run_that_goes_on_in_other_parts_looks(tmp_path: Path) -> None:
    """Private to Lightning. Where this fails, `runs/resume.py` has to find the counts elsewhere."""
    spec = disturbed_spec(**{"model.norm": "mln", "train.micro_batch": 16})
    with pytest.raises(Interrupted):
        runner(tmp_path).run(spec, RunOptions(stop=StopAfter(9)))
    checkpoint = torch.load(Store(tmp_path).folder(spec.run_id) / LAST, weights_only=True)
    counts = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert {"total", "current"} <= counts.keys()

    def counted(batches: int) -> dict[str, int]:
        return {"ready": batches, "started": batches, "processed": batches, "completed": batches - 1}

    assert spec.train.accumulation == 4 and counts["current"] == counted(4 * 10)
    rescale_batch_counts(checkpoint, then=4, now=2)
    assert counts["current"] == counted(2 * 10)


def test_lightning_does_not_handle_signals(tmp_path: Path) -> None:
    """By its private `_signal_connector`. Where this fails, `runs/trainer.py` has to keep it away otherwise."""
    seen = set()

    class Looking(StopRequest):
        def __call__(self) -> bool:
            seen.add(signal.getsignal(signal.SIGTERM))
            return False

    before = signal.getsignal(signal.SIGTERM)
    assert runner(tmp_path).run(disturbed_spec(), RunOptions(stop=Looking())).status == "ok"
    assert seen == {before}
    connector = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)._signal_connector
    assert callable(connector.register_signal_handlers)


def test_a_run_that_was_stopped_often(undisturbed: Record, tmp_path: Path) -> None:
    attempts = 0
    while True:
        attempts += 1
        try:
            record = runner(tmp_path).run(disturbed_spec(), RunOptions(stop=StopAfter(8)))
            break
        except Interrupted:
            continue
    assert attempts > 5
    assert content(record) == content(undisturbed)


def test_every_checkpoint_on_the_way_leads_to_the_same_record(undisturbed: Record, tmp_path: Path) -> None:
    """With a checkpoint after every step, an attempt that dies without a word loses the step it was in."""

    class Died(BaseException):
        pass

    generator = random.Random(0)
    for _ in range(4):
        left = generator.randrange(2, 14)

        def die(progress: Any) -> None:
            raise Died

        class Dying(StopRequest):
            def __call__(self, left: list[int] = [left]) -> bool:  # noqa: B006
                left[0] -= 1
                if left[0] < 0:
                    raise Died
                return False

        with pytest.raises(Died):
            runner(tmp_path).run(disturbed_spec(), RunOptions(checkpoint_seconds=0, stop=Dying()))
    record = runner(tmp_path).run(disturbed_spec(), RunOptions(checkpoint_seconds=0))
    assert content(record) == content(undisturbed)


def test_a_flipped_bit_is_found_and_the_checkpoint_before_it_is_used(undisturbed: Record, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path).run(disturbed_spec(), RunOptions(checkpoint_seconds=0, stop=StopAfter(30)))
    folder = Store(tmp_path).folder(disturbed_spec().run_id)
    assert is_whole(folder / LAST) and is_whole(folder / PREVIOUS)
    damaged = bytearray((folder / LAST).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (folder / LAST).write_bytes(damaged)
    torch.load(folder / LAST, weights_only=True)  # torch reads it all the same: that is why checkpoints are sealed
    with pytest.warns(UserWarning, match=r"is damaged and was set aside"):
        record = runner(tmp_path).run(disturbed_spec())
    assert content(record) == content(undisturbed)


@pytest.mark.parametrize("how", ["cut", "empty", "nothing of ours"])
def test_without_a_whole_checkpoint_a_run_begins_at_the_beginning(
    how: str, undisturbed: Record, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path).run(disturbed_spec(), RunOptions(stop=StopAfter(30)))
    last = Store(tmp_path).folder(disturbed_spec().run_id) / LAST
    last.write_bytes({"cut": last.read_bytes()[:-100], "empty": b"", "nothing of ours": b"x" * 5000}[how])
    with pytest.warns(UserWarning, match="damaged"):
        record = runner(tmp_path).run(disturbed_spec())
    assert content(record) == content(undisturbed)


def test_a_checkpoint_of_another_run_is_set_aside(
    undisturbed: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With that of another seed in its place, the run begins at its beginning; with its own before that, there."""
    spec, other = disturbed_spec(), disturbed_spec(seed=1)
    for each in (spec, other):
        with pytest.raises(Interrupted):
            runner(tmp_path).run(each, RunOptions(checkpoint_seconds=0, stop=StopAfter(30)))
    ours, theirs = (Store(tmp_path).folder(each.run_id) for each in (spec, other))
    foreign = (theirs / LAST).read_bytes()
    (ours / LAST).write_bytes(foreign)
    begun = torch.load(ours / PREVIOUS, weights_only=True)["callbacks"]["run"]["started"]
    record = runner(tmp_path).run(spec)
    assert content(record) == content(undisturbed) and record.data["started"] == begun
    assert f"{LAST} is of another run ({other.run_id}); it was set aside as " in (said := capsys.readouterr().err)
    assert said.endswith("and the run tries the one before it\n") and said.count("\n") == 1
    Store(tmp_path).set_aside(spec.run_id)
    ours.mkdir()
    (ours / LAST).write_bytes(foreign)
    record = runner(tmp_path).run(spec)
    assert content(record) == content(undisturbed)
    assert capsys.readouterr().err.endswith("and the run begins at its beginning\n")
    aside = list((tmp_path / "aside").glob(f"{spec.run_id}-last-*.ckpt"))
    assert [path.read_bytes() for path in aside] == [foreign] * 2, "neither is destroyed"


def test_a_checkpoint_that_does_not_say_whose_it_is_is_not_used(
    undisturbed: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As earlier code wrote them: its state under the name of a class."""
    with pytest.raises(Interrupted):
        runner(tmp_path).run(disturbed_spec(), RunOptions(stop=StopAfter(30)))
    checkpoints = Checkpoints(Store(tmp_path).folder(disturbed_spec().run_id))
    state = torch.load(checkpoints.folder / LAST, weights_only=True)
    state["callbacks"] = {"RunCallback": state["callbacks"]["run"]}
    checkpoints.save(lambda path: torch.save(state, path))
    (checkpoints.folder / PREVIOUS).unlink()
    assert content(runner(tmp_path).run(disturbed_spec())) == content(undisturbed)
    assert "was written by other code" in capsys.readouterr().err


def test_a_checkpoint_of_other_versions_is_not_used(
    undisturbed: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("metaformer_ablate.system.provenance.versions", lambda: {"torch": "1.0"})
        with pytest.raises(Interrupted):
            runner(tmp_path).run(disturbed_spec(), RunOptions(stop=StopAfter(30)))
    record = runner(tmp_path).run(disturbed_spec())
    assert content(record) == content(undisturbed)
    assert "was written with other versions (" in (said := capsys.readouterr().err)
    assert f"torch 1.0, now {torch.__version__}" in said


def test_the_state_that_a_run_goes_on_with_is_the_one_it_had(tmp_path: Path) -> None:
    """A run whose checkpoint was changed (and sealed again) goes on from the change: checkpoints are really used."""
    with pytest.raises(Interrupted):
        runner(tmp_path).run(disturbed_spec(), RunOptions(stop=StopAfter(30)))
    checkpoints = Checkpoints(Store(tmp_path).folder(disturbed_spec().run_id))
    state = torch.load(checkpoints.folder / LAST, weights_only=True)
    state["callbacks"]["run"]["history"][0]["train_loss"] = 123.0
    checkpoints.save(lambda path: torch.save(state, path))
    assert runner(tmp_path).run(disturbed_spec()).history()[0]["train_loss"] == 123.0


def test_kept_checkpoints_hold_the_weights_that_predicted(tmp_path: Path) -> None:
    from specs import build_net

    spec = disturbed_spec()
    used = runner(tmp_path)
    record = used.run(spec, RunOptions(keep_checkpoints=True))
    assert sorted(path.name for path in record.folder.iterdir()) == [
        "history.csv",
        LAST,
        "predictions.npz",
        "record.json",
        "spec.yaml",
    ]
    assert is_whole(record.folder / LAST)
    state = torch.load(record.folder / LAST, weights_only=True)["state_dict"]
    net = build_net(spec)
    net.load_state_dict({key.removeprefix("net."): value for key, value in state.items()})
    net.eval()
    data = used.data(spec)
    assert isinstance(data, InMemoryData)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (data.mean, data.std))
    with torch.no_grad():
        predicted = net((data.evaluation.images / 255 - mean) / std).argmax(1)
    assert np.array_equal(predicted.numpy(), record.predictions()["predicted"])


def test_a_run_killed_between_its_last_epoch_and_its_record_is_finished(
    undisturbed: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", lambda *a, **b: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runner(tmp_path).run(disturbed_spec(), RunOptions(checkpoint_seconds=0, keep_checkpoints=True))
    record = runner(tmp_path).run(disturbed_spec(), RunOptions(keep_checkpoints=True))
    assert content(record) == content(undisturbed)
    assert is_whole(record.folder / LAST)


def test_a_full_disk_at_a_checkpoint_ends_the_sweep_and_keeps_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path).run(disturbed_spec(), RunOptions(stop=StopAfter(30)))
    folder = Store(tmp_path).folder(disturbed_spec().run_id)
    before = (folder / LAST).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"the checkpoint of run .* cannot be written: the disk is full"):
            runner(tmp_path).run(disturbed_spec(), RunOptions(checkpoint_seconds=0))
    assert [path.name for path in folder.iterdir()] == [LAST]
    assert (folder / LAST).read_bytes() == before


# Where a stop finds a step: in it, in a checkpoint and after it, in the evaluation, in the record. Steps 25 and 44 of
# 66 are the third of an epoch and the last one.
MOMENTS = {
    "a step": ("metaformer_ablate.tasks.classification.module.Classification.training_step", 25),
    "the last step of an epoch": ("metaformer_ablate.tasks.classification.module.Classification.training_step", 44),
    "a checkpoint": ("metaformer_ablate.records.checkpoints.Checkpoints.save", 3),
    "the evaluation": ("metaformer_ablate.tasks.classification.module.Classification.validation_step", 2),
    "a line of the history": ("metaformer_ablate.tasks.classification.module.Classification.finish_epoch", 2),
    "the record": ("metaformer_ablate.records.store.Store.write", 1),
}
SIGNAL = """
import os, pkgutil, signal, sys
owner, _, name = sys.argv.pop(1).rpartition(".")
owner, count, number = pkgutil.resolve_name(owner), int(sys.argv.pop(1)), int(sys.argv.pop(1))
inner, calls, after = getattr(owner, name), 0, sys.argv.pop(1) == "after"
def outer(*arguments, **named):
    global calls
    calls += 1
    if calls == count and not after:
        os.kill(os.getpid(), number)
    found = inner(*arguments, **named)
    if calls == count and after:
        os.kill(os.getpid(), number)
    return found
setattr(owner, name, outer)
"""
COMMAND = SIGNAL + "from metaformer_ablate.cli.main import main; main()"
# What a job of Slurm calls, without submitit around it.
JOB = (
    SIGNAL
    + """
import json
from metaformer_ablate.runs.request import RunRequest
from metaformer_ablate.runs.worker import execute
from metaformer_ablate.tasks.classification.data.in_memory import InMemoryData
from metaformer_ablate.system.signals import Interrupted, StopRequest
order = RunRequest(**json.loads(sys.argv[1]))
with StopRequest().catching(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2) as stop:
    try:
        ended = execute(order, stop)
    except Interrupted as interruption:
        ended = interruption
print(type(ended).__name__, getattr(ended, "outcome", ""))
"""
)


def signalled(code: str, moment: str, when: str, number: int, *words: object, cwd: Path) -> subprocess.CompletedProcess:
    """A process that sends itself a signal at a moment."""
    target, count = MOMENTS[moment]
    arguments = [sys.executable, "-c", code, target, str(count), str(int(number)), when, *map(str, words)]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("moment", "when"),
    [
        ("a checkpoint", "before"),
        ("a checkpoint", "after"),
        *(
            pytest.param(moment, when, marks=[pytest.mark.slow, *marks])
            for moment in MOMENTS
            for when, marks in (("before", []), ("after", [pytest.mark.fuzz]))
            if moment != "a checkpoint"
        ),
    ],
)
def test_a_stop_at_any_moment_of_a_step_saves_the_place(
    moment: str, when: str, undisturbed: Record, tmp_path: Path
) -> None:
    """The first of two runs is told to stop: one run is left, and the exit code says so."""
    words = [*_merged([f"{key}={json.dumps(value)}" for key, value in SETTINGS.items()]), "--checkpoint-seconds", "0"]
    words = ["run", "pooling_size", *words, "--workers", "0"]
    done = signalled(COMMAND, moment, when, signal.SIGTERM, *words, cwd=tmp_path)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "stopped by SIGTERM" in done.stderr.splitlines() and "Traceback" not in done.stderr
    assert "error:" not in done.stderr
    store = Store(tmp_path / "results")
    assert len(list(store)) == (moment == "the record"), "it went on"
    assert (store.folder(disturbed_spec().run_id) / LAST).exists() == (moment != "the record")
    assert not list((tmp_path / "results" / ".claims").iterdir())
    assert content(runner(tmp_path / "results").run(disturbed_spec())) == content(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.slow
def test_a_job_that_is_stopped_while_a_checkpoint_is_written_saves_its_place(
    number: signal.Signals, undisturbed: Record, tmp_path: Path
) -> None:
    spec = disturbed_spec()
    order = RunRequest(spec.with_execution(), str(tmp_path), None, "cpu", "a job", spec.run_id, checkpoint_seconds=0)
    done = signalled(JOB, "a checkpoint", "before", number, json.dumps(asdict(order)), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "RunResult stopped\n"), done.stderr
    assert (Store(tmp_path).folder(spec.run_id) / LAST).exists()
    assert content(runner(tmp_path).run(spec)) == content(undisturbed)


def test_a_trial_that_is_stopped_while_a_checkpoint_is_written_saves_its_place(tmp_path: Path) -> None:
    words = ["trial", "pooling_size", "row=pool3", *TINY_WORDS, "--checkpoint-seconds", "0"]
    done = signalled(COMMAND, "a checkpoint", "before", signal.SIGTERM, *words, cwd=tmp_path)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    (folder,) = Store(tmp_path / "results").runs.iterdir()
    assert LAST in [path.name for path in folder.iterdir()]
    assert "Traceback" not in done.stderr


# Claims


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "HEARTBEAT_SECONDS", 0.05)


def test_a_claim_is_for_one(tmp_path: Path) -> None:
    mine, theirs = Claims(tmp_path), Claims(tmp_path)
    claim = mine.take("0123456789ab", "a row")
    assert claim is not None and claim.holds()
    assert theirs.take("0123456789ab") is None
    assert theirs.take("ffffffffffff") is not None
    assert theirs.held()["0123456789ab"].name == "a row"
    claim.release()
    assert sorted(theirs.held()) == ["ffffffffffff"]
    again = theirs.take("0123456789ab")
    assert again is not None and again.holds() and not claim.holds()


def test_of_many_processes_one_gets_the_claim(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from metaformer_ablate.records.claims import Claims\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "got = [Claims(Path(sys.argv[1])).take('%012x' % i) is not None for i in range(40)]\n"
        "print(''.join('01'[g] for g in got)); sys.stdout.flush(); time.sleep(1.5)\n"
    )
    start = str(time.time() + 1.0)
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), start], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    got = [child.communicate(timeout=300)[0].strip() for child in children]
    assert [sum(int(line[i]) for line in got) for i in range(40)] == [1] * 40


def test_the_claim_of_a_process_that_is_gone_is_taken_over_at_once(tmp_path: Path) -> None:
    code = "import sys, os; from pathlib import Path; from metaformer_ablate.records.claims import Claims\n"
    code += "Claims(Path(sys.argv[1])).take('0123456789ab'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    observer = Claims(tmp_path)
    assert observer.current("0123456789ab") is not None
    assert observer.held() == {}
    claim = observer.take("0123456789ab")
    assert claim is not None and claim.generation == 1
    assert [p.name for p in observer.folder.iterdir()] == ["0123456789ab.1"]
    claim.release()
    assert list(observer.folder.iterdir()) == []


def elsewhere(folder: Path, run_id: str = "0123456789ab", beat: int = 1) -> None:
    """A claim of an owner on another machine, of which only the beat can be seen."""
    folder.mkdir(exist_ok=True)
    owner = {"token": "t", "beat": beat, "host": "far", "machine": "far 1", "pid": 1, "parent": 0, "started": "1"}
    (folder / f"{run_id}.0").write_text(json.dumps({**owner, "name": "", "progress": None}))


def test_an_owner_elsewhere_is_dead_after_a_lease_without_a_beat(tmp_path: Path) -> None:
    observer = Claims(tmp_path, lease=0.3)
    elsewhere(observer.folder)
    assert observer.take("0123456789ab") is None
    for beat in range(2, 5):
        time.sleep(0.2)
        elsewhere(observer.folder, beat=beat)
        assert observer.take("0123456789ab") is None, "it beats"
    time.sleep(0.4)
    assert observer.take("0123456789ab") is not None


def test_the_clocks_of_machines_are_not_compared(tmp_path: Path) -> None:
    observer = Claims(tmp_path, lease=0.3)
    elsewhere(observer.folder)
    for when in (0, time.time() + 1e6):
        os.utime(observer.folder / "0123456789ab.0", (when, when))
        assert observer.take("0123456789ab") is None


def test_a_claim_is_held_whatever_its_run_is_called(tmp_path: Path) -> None:
    """By a name of a thousand settings, or with a letter that no file can hold."""
    claim = Claims(tmp_path).take("0123456789ab", "\udcff" + "model.pool_size=3 " * 1000)
    assert claim is not None and claim.holds()
    claim.heartbeat()
    owner = Claims(tmp_path).current("0123456789ab")
    assert owner is not None and owner.token == claim.token and owner.name.startswith(r"\udcffmodel.pool_size=3 ")
    claim.release()


def test_who_was_only_stalled_sees_that_it_was_outnumbered(tmp_path: Path, patient: None) -> None:
    claim = Claims(tmp_path).take("0123456789ab")
    assert claim is not None
    other = Claims(tmp_path).take("0123456789ab", dead=claim.token)
    assert other is not None and other.generation == 1
    deadline = time.monotonic() + 60
    while not claim.lost and time.monotonic() < deadline:
        time.sleep(0.02)
    assert claim.lost and other.holds()
    claim.release()
    assert other.holds()


def test_a_run_whose_claim_was_lost_leaves_no_checkpoint(tmp_path: Path) -> None:
    """It would lie beside the record of whoever took the run over, as the weights that it ended with."""
    spec = disturbed_spec()
    claim = Claims(tmp_path).take(spec.run_id)
    assert claim is not None
    assert Claims(tmp_path).take(spec.run_id, dead=claim.token) is not None
    with pytest.raises(ClaimLost):
        runner(tmp_path).run(spec, RunOptions(claim=claim, checkpoint_seconds=0.0))
    assert not Store(tmp_path).folder(spec.run_id).exists()


def test_a_run_that_went_on_at_another_commit_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code in ("a", "a", "b"):
        state = {"commit": code * 40, "dirty": code == "a"}
        monkeypatch.setattr("metaformer_ablate.system.provenance.git_state", lambda state=state: state)
        if code == "b":
            break
        with pytest.raises(Interrupted):
            runner(tmp_path).run(disturbed_spec(), RunOptions(stop=StopAfter(9)))
    record = runner(tmp_path).run(disturbed_spec())
    assert record.data["git"]["commit"] == "b" * 40
    assert record.data["earlier_code"] == [{"commit": "a" * 40, "dirty": True}]


def test_a_run_whose_claim_was_lost_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = disturbed_spec()
    claim = Claims(tmp_path).take(spec.run_id)
    assert claim is not None
    claim.lost = True
    monkeypatch.setattr("metaformer_ablate.runs.callback.PROGRESS_SECONDS", 0.0)
    with pytest.raises(ClaimLost):
        runner(tmp_path).run(spec, RunOptions(claim=claim))
    assert Store(tmp_path).read(spec.run_id) is None


def test_of_two_that_finish_one_run_the_first_record_stands(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = fake_record(store, spec_of(), top1=50.0)
    data = {key: value for key, value in first.data.items() if key != "checksums"}
    second = store.write(spec_of(), {**data, "metrics": {"top1": 60.0}}, [], first.predictions())
    assert second.value("top1") == 50.0 and store.read(first.run_id).data == first.data
    assert list(store.runs.iterdir()) == [first.folder]


def test_damaged_checkpoints_do_not_look_like_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder("0123456789ab")
    folder.mkdir(parents=True)
    for name in (LAST, PREVIOUS, f"{DAMAGED}.1"):
        (folder / name).write_bytes(b"x")
    assert store.read("0123456789ab") is None and store.problems == {}
    (folder / "spec.yaml").write_text("{}")
    assert store.read("0123456789ab") is None and "half-written" in store.problems["0123456789ab"]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.fuzz)])
def test_sigkill_and_the_same_command_again(kills: int, tmp_path: Path, undisturbed: Record) -> None:
    """SIGKILLs of the whole sweep, at random moments; benchmarks/kills.py does a hundred."""
    words = [f"{key}={json.dumps(value)}" for key, value in SETTINGS.items()]
    arguments = command("run", "pooling_size", *_merged(words), "--workers", "2", "--checkpoint-seconds", "0")
    generator = random.Random(1)
    for _ in range(kills):
        sweep = subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        # Imports come first: a kill is of use once one of its workers holds a run.
        while not any(h.parent == sweep.pid for h in Claims(tmp_path / "results").held().values()):
            if sweep.poll() is not None:
                break
            time.sleep(0.02)
        time.sleep(generator.uniform(0.0, 0.4))
        sweep.kill()
        sweep.wait()
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "results")
    assert len(list(store)) == 4 and not store.problems
    record = store.read(disturbed_spec().run_id)
    assert record is not None and content(record) == content(undisturbed)


def _merged(words: list[str]) -> list[str]:
    keys = {word.partition("=")[0] for word in words}
    return [*words, *(word for word in TINY_WORDS if word.partition("=")[0] not in keys)]
