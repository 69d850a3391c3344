"""Training that is given in steps: evaluations, the last short epoch, progress, going on; schedules in whole runs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_WORDS
from disturbed import SETTINGS, StopAfter, assert_equal_to_rounding, content, make_request, runner, trained_by
from specs import spec_of

from metaformer_ablate.records.claims import Progress
from metaformer_ablate.records.record import Record
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.outcome import failed_record
from metaformer_ablate.runs.request import RunRequest
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.jobs import Job, estimate_seconds
from metaformer_ablate.system.signals import Interrupted
from metaformer_ablate.training.optim import learning_rate

# Epochs of 22 steps, batch norm, mixing, stochastic depth: two whole epochs and 6 steps of a third.
IN_STEPS: dict[str, Any] = {
    **{path: value for path, value in SETTINGS.items() if path not in ("train.epochs", "train.warmup_epochs")},
    "train.steps": 50,
    "train.schedule": "poly",
    "train.min_lr": 0.0,
    "train.warmup_steps": 7,
    "train.optimizer": "momentum",
    "train.decay_on": "all",
}


def in_steps(**train: Any) -> RunSpec:
    return spec_of({**IN_STEPS, **{f"train.{key}": value for key, value in train.items()}}, words=TINY_WORDS)


@pytest.fixture(scope="module")
def undisturbed(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Record:
    return runner(tmp_path_factory.mktemp("undisturbed")).run(in_steps())


def test_a_run_ends_at_its_step_with_an_evaluation(undisturbed: Record) -> None:
    assert undisturbed.status == "ok", undisturbed.data["reason"]
    assert (undisturbed.data["epochs"], undisturbed.data["images_seen"]) == (3, 50 * 64)
    history = undisturbed.history()
    assert [(line["epoch"], line["step"]) for line in history] == [(1, 22), (2, 44), (3, 50)]
    assert [line["lr"] for line in history] == [learning_rate(in_steps().train, step, 22) for step in (21, 43, 49)]
    last = {name: history[-1][f"val_{name}"] for name in ("loss", "top1", "top5")}
    assert undisturbed.data["metrics"] == last
    assert last["loss"] != history[-2]["val_loss"]


def test_it_is_the_beginning_of_a_longer_one(tmp_path: Path) -> None:
    """At a constant rate the lines of 50 steps are those of 3 epochs, but for the last: 6 steps of 22 are its mean."""
    constant = {"schedule": "constant", "warmup_steps": 0, "steps": None}
    whole = runner(tmp_path / "whole").run(in_steps(**constant, epochs=3))
    part = runner(tmp_path / "part").run(in_steps(**{**constant, "steps": 50}))
    losses: list[float] = []

    class Listening:
        """As a tracker: told each loss."""

        def loss(self, step: int, loss: torch.Tensor) -> None:
            losses.append(float(loss))

        def epoch(self, line: dict[str, float]) -> None:
            pass

    again = runner(tmp_path / "again").run(
        in_steps(**{**constant, "steps": 50}),
        RunOptions(tracker=Listening()),  # type: ignore[arg-type]
    )
    assert content(again) == content(part)

    def of(record: Record, number: int) -> dict[str, float]:
        return {key: value for key, value in record.history()[number].items() if key != "seconds"}

    assert [of(part, i) for i in (0, 1)] == [of(whole, i) for i in (0, 1)]
    assert len(losses) == 50
    assert part.history()[2]["train_loss"] == pytest.approx(sum(losses[44:]) / 6, rel=1e-6)


def test_as_many_steps_as_some_epochs_have_are_the_same_training(tmp_path: Path) -> None:
    settings = {"schedule": "cosine", "warmup_steps": None, "warmup_epochs": 0.5, "steps": None}
    epochs = runner(tmp_path / "epochs").run(in_steps(**settings, epochs=2))
    steps = runner(tmp_path / "steps").run(in_steps(**{**settings, "steps": 44}))
    assert epochs.run_id != steps.run_id
    assert content(epochs) | {"run_id": None} == content(steps) | {"run_id": None}


# Asked at each step and at each epoch's end: after the first step, within an epoch, at its end, at the end of the one
# before the last, short one, and after its first step and its last but one.
@pytest.mark.parametrize("steps", [0, 9, 22, 45, 46, 50])
def test_a_run_of_steps_that_was_stopped_ends_as_one_that_was_not(
    steps: int, undisturbed: Record, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path).run(in_steps(), RunOptions(stop=StopAfter(steps)))
    assert content(runner(tmp_path).run(in_steps())) == content(undisturbed)


def test_progress_ends_at_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaformer_ablate.runs.callback.PROGRESS_SECONDS", 0.0)
    told: list[Progress] = []
    runner(tmp_path).run(in_steps(), RunOptions(told.append))
    assert {one.epochs for one in told} == {3}
    shares = [one.share for one in told]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert any(share == pytest.approx(45 / 50) for share in shares)


def test_fewer_steps_than_an_epoch_has(tmp_path: Path) -> None:
    record = runner(tmp_path).run(in_steps(steps=8))
    assert [(line["epoch"], line["step"]) for line in record.history()] == [(1, 8)]
    assert record.data["epochs"] == 1 and record.data["images_seen"] == 8 * 64


@pytest.mark.slow
def test_in_parts_and_on_two_devices(tmp_path: Path) -> None:
    def spec(**train: Any) -> RunSpec:
        return spec_of({**in_steps_plain, **{f"train.{k}": v for k, v in train.items()}}, words=TINY_WORDS)

    in_steps_plain = {**IN_STEPS, "model.norm": "mln", "train.steps": 30}
    one = runner(tmp_path / "one").run(spec())
    assert [line["step"] for line in one.history()] == [22, 30]
    assert_equal_to_rounding(runner(tmp_path / "parts").run(spec(micro_batch=16)), one)
    assert_equal_to_rounding(trained_by(spec(devices=2), tmp_path / "two"), one)


def test_a_worker_is_given_all_of_the_spec(tmp_path: Path) -> None:
    spec = in_steps(optimizer_args={"momentum": 0.5, "nesterov": True})
    request = make_request(spec, tmp_path)
    assert isinstance(request, RunRequest)
    assert RunSpec.model_validate(request.spec).run_id == spec.run_id
    record = trained_by(spec, tmp_path)
    assert record.spec()["train"]["optimizer_args"] == {"momentum": 0.5, "nesterov": True}
    assert RunSpec.model_validate(record.spec()).run_id == record.run_id


def test_what_is_expected_of_a_run_that_was_not_trained() -> None:
    assert failed_record(in_steps(), "it died")["epochs"] == 3
    jobs = [Job(spec, ("a/b",)) for spec in (in_steps(), in_steps(steps=100))]
    one, two = (estimate_seconds([job], [], lambda spec: 1000) for job in jobs)
    assert two == pytest.approx(2 * one)


def test_the_history_on_disk_has_the_short_epoch(undisturbed: Record) -> None:
    with open(undisturbed.folder / "history.csv", newline="") as stream:
        assert [line["step"] for line in csv.DictReader(stream)] == ["22", "44", "50"]
