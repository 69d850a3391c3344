"""One spec to one record: the same again, whatever stands around it; what diverges or fails is recorded as that."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.classification
from conftest import REPOSITORY
from specs import build_net, fake_record, spec_of
from torch import Tensor, nn
from torch.nn import functional as F

import metaformer_ablate.tasks.classification.net
from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.build import build_model
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.records.claims import Progress
from metaformer_ablate.records.record import LATER_PACKAGES, Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.outcome import failure_reason
from metaformer_ablate.runs.request import RunRequest
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.runs.worker import Worker
from metaformer_ablate.spec import experiment
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.jobs import Job, make_request
from metaformer_ablate.sweep.launchers.local import InProcess
from metaformer_ablate.sweep.scheduler import Sweep
from metaformer_ablate.system.devices import choose_device
from metaformer_ablate.system.provenance import PACKAGES
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.data.in_memory import load_images, train_loader
from metaformer_ablate.tasks.classification.metrics import measure
from metaformer_ablate.tasks.classification.module import Classification
from metaformer_ablate.training.optim import learning_rate, seed_generators

CPU = torch.device("cpu")
EXPERIMENTS = REPOSITORY / "experiments"

# Of a record; `checksums` is the store's own.
KEYS = """format run_id status reason metrics at_chance params frozen_params macs macs_224 uncounted classes epochs
images_seen seconds device precision compiled kernels cpu peak_memory_bytes versions git data_fingerprint started ended
checksums""".split()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A run sets the threads of the process; the tests after it get back what they had."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(tiny_words: tuple[str, ...]) -> Callable[..., RunSpec]:
    """tiny({"train.lr": 1}, seed=1): a spec of `digits` that trains within a second."""

    def make(settings: dict[str, Any] | None = None, seed: int = 0) -> RunSpec:
        return spec_of(settings, words=tiny_words, seed=seed)

    return make


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Record]:
    """train(spec): its record, in a results folder of its own."""
    count = iter(range(1000))

    def run(spec: RunSpec, report: Callable[[Progress], None] = lambda progress: None) -> Record:
        return Runner(Store(tmp_path / str(next(count))), DataFolder.choose(None), CPU).run(spec, RunOptions(report))

    return run


def outcome(record: Record) -> tuple[Any, ...]:
    """What has to be the same bit for bit: metrics, history but for its seconds, predictions."""
    assert record.status == "ok", record.data["reason"]
    with (record.folder / "history.csv").open() as stream:
        history = [line.rsplit(",", 1)[0] for line in stream]
    predictions = {key: (value.dtype.str, value.tobytes()) for key, value in record.predictions().items()}
    return record.data["metrics"], history, predictions


# ---------------------------------------------------------------------------------------------------------------------
# The same again

# Every source of chance: crop, flip, Mixup or CutMix, stochastic depth.
RANDOM = {
    "train.epochs": 2,
    "train.batch_size": 256,
    "model.drop_path": 0.2,
    "data.flip": True,
    "data.mixup": 0.8,
    "data.cutmix": 1.0,
    "data.crop_padding": 1,
}


def test_the_same_spec_gives_the_same_record(train: Callable[..., Record], tiny: Callable[..., RunSpec]) -> None:
    first, second = train(tiny(RANDOM)), train(tiny(RANDOM))
    assert outcome(first) == outcome(second)
    assert first.run_id == second.run_id
    seconds = {"seconds", "started", "ended", "checksums", "peak_memory_bytes"}  # nothing else differs
    assert {k: v for k, v in first.data.items() if k not in seconds} == {
        k: v for k, v in second.data.items() if k not in seconds
    }


def test_a_step_is_seeded_as_torch_would() -> None:
    torch.manual_seed(2**63 - 25)
    expected = torch.get_rng_state()
    torch.rand(3)
    seed_generators(2**63 - 25, CPU)
    assert torch.equal(torch.get_rng_state(), expected)


def test_seeds_differ(train: Callable[..., Record], tiny: Callable[..., RunSpec]) -> None:
    losses = {train(tiny({"train.batch_size": 512}, seed=seed)).data["metrics"]["loss"] for seed in range(3)}
    assert len(losses) == 3


def test_what_ran_before_does_not_matter(
    train: Callable[..., Record], tiny: Callable[..., RunSpec], tmp_path: Path
) -> None:
    alone = outcome(train(tiny(RANDOM)))
    runner = Runner(Store(tmp_path / "shared"), DataFolder.choose(None), CPU)
    runner.run(tiny({"data.image_size": 16, "train.batch_size": 512}, seed=9))
    torch.manual_seed(12345)
    torch.rand(3)
    np.random.seed(3)
    runner.run(tiny(seed=5))
    assert outcome(runner.run(tiny(RANDOM))) == alone


def test_a_worker_opens_the_data_of_a_sweep_once(tiny: Callable[..., RunSpec], tmp_path: Path) -> None:
    """Whichever runs it is given; that of another sweep is opened anew, as by another worker."""
    specs = [tiny({"train.epochs": 1, "train.batch_size": 512}, seed=seed) for seed in range(3)]
    worker, stop, opened = Worker(), StopRequest(), []

    def ended(worker: Worker, spec: RunSpec, results: str) -> str:
        request = RunRequest(spec.with_execution(), str(tmp_path / results), None, "cpu", "a run", spec.run_id)
        return worker.execute(request, stop).outcome

    def count(*of: Any) -> Any:
        opened.append(of)
        return load_images(*of)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaformer_ablate.tasks.classification.data.in_memory.load_images", count)
        assert [ended(worker, spec, "one") for spec in specs] == ["recorded"] * 3 and len(opened) == 1
        assert ended(worker, specs[0], "two") == "recorded" and len(opened) == 2
        assert ended(Worker(), specs[1], "two") == "recorded" and len(opened) == 3


def test_the_spec_decides_the_threads(
    train: Callable[..., Record], tiny: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    step = Classification.training_step
    monkeypatch.setattr(Classification, "training_step", lambda *of: used.append(torch.get_num_threads()) or step(*of))
    few = {"train.batch_size": 512}  # steps
    torch.set_num_threads(1)
    one = outcome(train(tiny(few)))
    torch.set_num_threads(2)
    assert outcome(train(tiny(few))) == one
    assert set(used) == {1}
    used.clear()
    assert train(tiny({**few, "train.threads": 2})).status == "ok"
    assert set(used) == {2}


@pytest.mark.slow
def test_another_process_gives_the_same_record(
    train: Callable[..., Record], tiny_words: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "one.yaml").write_text("baseline: only\nrows:\n  only: {set: {}}\n")
    arguments = ["run", str(tmp_path / "one.yaml"), *tiny_words, "--results", str(tmp_path / "there")]
    done = subprocess.run(
        [sys.executable, "-c", "from metaformer_ablate.cli.main import main; main()", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    here = train(spec_of(words=tiny_words))
    there = Store(tmp_path / "there").read(here.run_id)
    assert there is not None
    assert outcome(there) == outcome(here)


# ---------------------------------------------------------------------------------------------------------------------
# The record


def test_a_record_has_the_keys_of_the_contract(train: Callable[..., Record], tiny: Callable[..., RunSpec]) -> None:
    spec = tiny({"train.epochs": 3, "train.batch_size": 256})
    record = train(spec)
    data = json.loads((record.folder / "record.json").read_text())
    assert sorted(data) == sorted(KEYS)
    assert sorted(path.name for path in record.folder.iterdir()) == [
        "history.csv",
        "predictions.npz",
        "record.json",
        "spec.yaml",
    ]
    assert (data["format"], data["run_id"], data["status"], data["reason"]) == (1, spec.run_id, "ok", None)
    assert sorted(data["metrics"]) == ["loss", "top1", "top5"]
    assert data["epochs"] == 3
    assert data["images_seen"] == 3 * 5 * 256
    assert data["params"] == sum(p.numel() for p in build_net(spec).parameters())
    assert data["frozen_params"] == 0
    assert data["macs_224"] > data["macs"] > 0
    assert data["uncounted"]["aten::avg_pool2d"] == 4
    assert data["seconds"] > 0
    assert data["peak_memory_bytes"] is None or data["peak_memory_bytes"] > 1e6
    assert data["versions"]["torch"] == torch.__version__
    assert {"python", "pytorch-lightning", "numpy", "timm", "metaformer-ablate"} <= set(data["versions"])
    assert set(LATER_PACKAGES) <= set(PACKAGES)
    assert sorted(data["git"]) == ["commit", "dirty"]
    assert data["data_fingerprint"] == DataFolder.choose(None).fingerprint("digits")
    assert data["started"] <= data["ended"] and data["started"].endswith("+00:00")


def test_the_history_has_a_line_an_epoch(train: Callable[..., Record], tiny: Callable[..., RunSpec]) -> None:
    spec = tiny({"train.epochs": 3, "train.cooldown_epochs": 1, "train.batch_size": 256})
    record = train(spec)
    lines = (record.folder / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,step,lr,train_loss,val_loss,val_top1,val_top5,seconds"
    history = record.history()
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert [row["step"] for row in history] == [5, 10, 15, 20]
    assert [row["lr"] for row in history] == [learning_rate(spec.train, s, 5) for s in (4, 9, 14, 19)]
    assert history[2]["lr"] > history[3]["lr"] == spec.train.min_lr
    assert [row["seconds"] for row in history] == sorted(row["seconds"] for row in history)
    last = history[-1]
    assert {key: last[f"val_{key}"] for key in ("top1", "top5", "loss")} == record.data["metrics"], "not the last epoch"


def test_training_learns(train: Callable[..., Record]) -> None:
    # A net of about 4,000 parameters in four epochs: far from chance, and from what an error in the labels would leave.
    model = {"model.depths": [1, 1], "model.dims": [8, 16], "data.image_size": 8, "data.crop_padding": 0}
    record = train(spec_of({**model, "train.epochs": 4, "train.batch_size": 64, "train.lr": 0.02}))
    history = record.history()
    assert record.value("top1") is not None and record.value("top1") > 60
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert record.data["at_chance"] is False


def test_the_number_reported_is_that_of_the_predictions(
    train: Callable[..., Record], tiny: Callable[..., RunSpec]
) -> None:
    spec = tiny()
    record = train(spec)
    found = record.predictions()
    assert sorted(found) == ["confidence", "label", "predicted"]
    evaluated = load_images(spec.data, DataFolder.choose(None)).evaluation
    assert found["label"].tolist() == evaluated.labels.tolist(), "not in the order of the data set"
    assert record.value("top1") == pytest.approx(100 * np.mean(found["label"] == found["predicted"]), rel=1e-6)
    accuracy = torchmetrics.classification.MulticlassAccuracy(10, average="micro")
    labels, predicted = (torch.from_numpy(found[key].astype(np.int64)) for key in ("label", "predicted"))
    assert record.value("top1") == pytest.approx(100 * accuracy(predicted, labels).item(), rel=1e-6)
    assert found["confidence"].dtype == np.float32
    assert ((found["confidence"] >= 0.1 - 1e-6) & (found["confidence"] <= 1)).all()  # the largest of ten shares
    assert record.data["metrics"]["top5"] >= record.value("top1")


def test_measure_by_hand() -> None:
    rows = [[5, 4, 3, 2, 1, 0, -1], [0, 1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4, 3], [1, 2, 3, 4, 5, 6, 7]]
    logits = torch.tensor(rows, dtype=torch.float32)
    labels = torch.tensor([0, 2, 6, 1])  # first; fifth; last; sixth
    found = measure(logits, labels)
    assert found["top1"].item() == 25
    assert found["top5"].item() == 50
    assert found["loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item())
    two = measure(logits[:, :2], torch.tensor([0, 0, 1, 1]))  # fewer classes than five
    assert (two["top1"].item(), two["top5"].item()) == (50, 100)


@pytest.mark.parametrize("split", ["test", "holdout"])
def test_what_is_evaluated_is_the_split_of_the_spec(
    split: str, train: Callable[..., Record], tiny: Callable[..., RunSpec]
) -> None:
    record = train(tiny({"data.evaluate_on": split}))
    assert len(record.predictions()["label"]) == {"test": 355, "holdout": 144}[split]


def test_evaluation_is_without_augmentation(tiny: Callable[..., RunSpec]) -> None:
    spec = tiny({"data.mixup": 0.8, "data.flip": True})
    data = load_images(spec.data, DataFolder.choose(None))
    augment = Augment(spec.data, 10, data.mean, data.std, "contiguous")
    seen: list[Tensor] = []

    class Net(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.flatten(1)[:, :10]

    task = Classification(Net(), spec.train, augment, steps_per_epoch=1, seed=0)
    batch = data.evaluation[slice(0, 7)]
    task.validation_step(batch, 0)
    assert torch.equal(seen[0], augment.normalise(batch[0]))


def test_progress_is_reported(train: Callable[..., Record], tiny: Callable[..., RunSpec]) -> None:
    told: list[Progress] = []
    record = train(tiny({"train.epochs": 2}), told.append)
    assert [progress.share for progress in told] == sorted(progress.share for progress in told)
    assert told[-1].share == 1
    assert (told[-1].epoch, told[-1].epochs, told[-1].metrics) == (2, 2, record.data["metrics"])
    assert told[-1].images_per_second > 0


# ---------------------------------------------------------------------------------------------------------------------
# What goes wrong


def strict_json(record: Record) -> Any:
    """record.json, which has no NaN: that is no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"record.json holds {name}")

    return json.loads((record.folder / "record.json").read_text(), parse_constant=refuse)


def check_diverged(record: Record, step: int | None = None) -> None:
    data = strict_json(record)
    assert record.status == data["status"] == "diverged"
    found = re.fullmatch(r"the loss is not finite at step (\d+)", data["reason"])
    assert found, data["reason"]
    assert step is None or int(found[1]) == step
    assert data["metrics"] is None and data["at_chance"] is None and record.value("top1") is None
    assert sorted(data) == sorted(KEYS)
    assert not (record.folder / "predictions.npz").exists()


def test_an_absurd_learning_rate_diverges(train: Callable[..., Record], tiny: Callable[..., RunSpec]) -> None:
    record = train(tiny({"train.lr": 1e30}))
    check_diverged(record, step=1)
    assert record.data["images_seen"] == tiny().train.batch_size
    assert record.history() == []


def test_epochs_before_the_divergence_stay_in_the_history(
    train: Callable[..., Record], tiny: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny({"train.epochs": 3, "train.batch_size": 256})
    step = Classification.training_step

    def broken(task: Classification, batch: Any, index: int) -> Tensor:
        if task.global_step == 7:  # the third of the second epoch
            with torch.no_grad():
                task.net.head.fc.weight.fill_(float("inf"))
        return step(task, batch, index)

    monkeypatch.setattr(Classification, "training_step", broken)
    record = train(spec)
    check_diverged(record, step=7)
    assert [row["epoch"] for row in record.history()] == [1]
    assert record.data["images_seen"] == 7 * 256


def test_a_run_whose_last_step_breaks_it_diverges(train: Callable[..., Record], tiny: Callable[..., RunSpec]) -> None:
    # One step: its loss is finite, what it leaves is not, and no further loss of training tells.
    check_diverged(train(tiny({"train.lr": 1e30, "train.batch_size": 1442})), step=1)


def test_a_sweep_goes_on_after_runs_that_diverge_or_fail(
    tiny: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sometimes(model: ModelSpec, *shape: int, seed: int, **more: Any) -> nn.Module:
        if seed == 1:
            raise RuntimeError("the second\n  run broke")
        return build_model(model, *shape, seed=seed, **more)

    monkeypatch.setattr(metaformer_ablate.tasks.classification.net, "build_model", sometimes)
    specs = [tiny({"train.lr": 1e30}, seed=0), tiny(seed=1), tiny(seed=2)]
    store = Store(tmp_path)
    sweep = Sweep(
        jobs=[Job(spec, ("e/r",)) for spec in specs],
        request=partial(make_request, store=store, folder=DataFolder.choose(None), device="cpu"),
        launcher=InProcess("cpu", StopRequest()),
        store=store,
    )
    assert sweep.run() is None
    assert [store.find(spec.run_id).status for spec in specs] == ["diverged", "failed", "ok"]
    assert (sweep.finished, sweep.failed) == (3, 1)
    assert {record.run_id for record in store} == {spec.run_id for spec in specs}
    failed = store.find(specs[1].run_id)
    data = strict_json(failed)
    assert data["reason"] == "RuntimeError: the second run broke"
    assert data["metrics"] is None and data["params"] > 0
    assert sorted(data) == sorted(KEYS)
    assert "Traceback" in (failed.folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory with a batch of 16; try a smaller model.size or data.image_size"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
            "out of memory with a batch of 16; try a smaller model.size or data.image_size",
        ),
        (ZeroDivisionError(), "ZeroDivisionError: ZeroDivisionError"),
        (ValueError("pool_size"), "ValueError: pool_size"),
    ],
)
def test_a_failed_run_says_why(
    error: Exception,
    reason: str,
    train: Callable[..., Record],
    tiny: Callable[..., RunSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*of: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(metaformer_ablate.tasks.classification.net, "build_model", fail)
    record = train(tiny({"train.batch_size": 16}))
    assert (record.status, record.data["reason"]) == ("failed", reason)


def test_an_interrupted_run_leaves_nothing(
    tiny: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*of: Any) -> Any:
        raise Interrupted(signal.SIGTERM)  # what the command's handler of signals raises

    monkeypatch.setattr(Augment, "__call__", stop)
    store = Store(tmp_path)
    with pytest.raises(Interrupted):
        Runner(store, DataFolder.choose(None), CPU).run(tiny())
    assert store.ids() == []


def test_a_net_that_learnt_nothing_is_at_chance(train: Callable[..., Record], tiny: Callable[..., RunSpec]) -> None:
    record = train(tiny({"train.lr": 1e-9}))
    assert record.status == "ok"
    assert record.value("top1") is not None and record.value("top1") < 16
    assert record.data["at_chance"] is True


def test_an_unknown_device_is_refused() -> None:
    assert choose_device("cpu") == CPU
    for option in ("gpu", "cuda:x", "mps", "cpu0", ""):
        with pytest.raises(RequestError, match="allowed: auto, cpu, cuda, cuda:N"):
            choose_device(option)
    with pytest.raises(RequestError, match=r"this machine has \d+ CUDA devices"):
        choose_device("cuda:99")


# ---------------------------------------------------------------------------------------------------------------------
# Every experiment and every switch trains a step

CASES: dict[str, dict[str, Any]] = {
    "mixup": {"data.mixup": 0.8},
    "cutmix": {"data.cutmix": 1.0},
    "mixup and cutmix, smoothed": {"data.mixup": 0.8, "data.cutmix": 1.0, "train.label_smoothing": 0.1},
    "label smoothing": {"train.label_smoothing": 0.2},
    "flip": {"data.flip": True},
    "stochastic depth": {"model.drop_path": 0.3},
    "clipping": {"train.clip_grad": 0.01},
    "contiguous": {"train.memory_format": "contiguous"},
    "bf16": {"train.precision": "bf16"},
    "constant schedule": {"train.schedule": "constant"},
    "schedule by epoch": {"train.schedule_unit": "epoch", "train.warmup_epochs": 1, "train.epochs": 2},
    "warm-up": {"train.warmup_epochs": 0.5},
    "decay": {"train.weight_decay": 0.9},
}


@pytest.mark.parametrize("name", CASES)
def test_a_setting_changes_the_run(
    name: str, train: Callable[..., Record], tiny: Callable[..., RunSpec], plain: dict[str, float]
) -> None:
    record = train(tiny(CASES[name]))
    assert record.status == "ok", record.data["reason"]
    loss = record.data["metrics"]["loss"]
    assert np.isfinite(loss)
    if name != "contiguous":  # another order of the same sums; it may give the same
        assert loss != plain["loss"], "it changes nothing"


@pytest.fixture(scope="module")
def plain(tiny_words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Metrics of the tiny spec without any of CASES."""
    store = Store(tmp_path_factory.mktemp("plain"))
    record = Runner(store, DataFolder.choose(None), CPU).run(
        spec_of({"train.label_smoothing": 0.1, "data.crop_padding": 2}, words=tiny_words)
    )
    return record.data["metrics"]


# Fields whose value changes no part.
NUMBERS = ("depths", "dims", "pool_size", "kernel_size", "layer_scale", "drop_path", "mlp_ratio", "head_dropout")


def rows_to_train() -> list[tuple[str, str]]:
    """Of each experiment the first two rows, and each with parts that no row before it has."""
    chosen = []
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        seen: set[tuple[Any, ...]] = set()
        rows = plan(str(path)).specs
        for i, (row, spec) in enumerate(rows.items()):
            parts = tuple(getattr(spec.model, name) for name in ModelSpec.model_fields if name not in NUMBERS)
            if i < 2 or parts not in seen:
                chosen.append((path.stem, row))
            seen.add(parts)
    experiment.load_experiment.cache_clear()
    experiment.load_recipe.cache_clear()
    return chosen


def shallow(spec: RunSpec) -> RunSpec:
    """One block a stage, narrow: the parts of a row do not depend on its size."""
    if spec.model.depths is None:  # a comparator is what it is
        return spec
    model = {"depths": (1,) * len(spec.model.depths), "dims": (32, 32, 64, 64)[: len(spec.model.depths)]}
    return spec.model_copy(update={"model": spec.model.model_copy(update=model)})


@pytest.mark.parametrize(("name", "row"), rows_to_train())
def test_every_row_of_every_experiment_trains_a_step(name: str, row: str) -> None:
    spec = shallow(plan(str(EXPERIMENTS / f"{name}.yaml")).specs[row])
    data = load_images(DataSpec(name="digits", image_size=spec.data.image_size), DataFolder.choose(None))
    net = build_net(spec)
    augment = Augment(spec.data, DATASETS["digits"].num_classes, data.mean, data.std, spec.train.memory_format)
    task = Classification(net, spec.train, augment, steps_per_epoch=1, seed=0)
    optimizer = task.configure_optimizers()["optimizer"]
    before = {name: parameter.clone() for name, parameter in net.named_parameters()}
    task.on_train_epoch_start()
    loss = task.training_step(next(iter(train_loader(data.train, 16, seed=0))), 0)
    loss.backward()
    assert loss.isfinite()
    optimizer.step()
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None and torch.equal(parameter, before[name]), name
            continue
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.isfinite().all(), name
        if parameter.ndim > 1:  # a bias before a norm or before pooling may rightly get nothing
            assert parameter.grad.abs().max() > 0, name
            assert not torch.equal(parameter, before[name]), name


def test_rows_were_found() -> None:
    assert ("pooling_size", "pool3") in rows_to_train()


def test_a_reason_of_any_length_leaves_a_record_that_can_be_read(tmp_path: Path) -> None:
    reason = failure_reason(ValueError("x" * 1_000_000), spec_of())
    assert reason.startswith("ValueError: xxx") and len(reason) < 3_000
    store = Store(tmp_path)
    fake_record(store, spec_of(), status="failed", reason=reason)
    record = store.read(spec_of().run_id)
    assert record is not None and record.data["reason"] == reason


def test_a_record_names_its_classes_however_many_they_are(tmp_path: Path) -> None:
    """As many as a folder of images may have, with names as long as such names are."""
    store, names = Store(tmp_path), [f"{i:05} {'a long name ' * 4}" for i in range(65_536)]
    fake_record(store, spec_of(), classes=names)
    record = store.read(spec_of().run_id)
    assert record is not None and record.data["classes"] == names
