"""Runs that are stopped, and what has to be equal after them."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.runs.worker import execute
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import StopRequest

CPU = torch.device("cpu")


# Everything that draws at random or remembers: three epochs of 22 steps, augmentation, stochastic depth, mixing,
# warm-up, clipping, batch norm's running statistics.
SETTINGS: dict[str, Any] = {
    "train.epochs": 3,
    "train.warmup_epochs": 1.5,
    "train.clip_grad": 1.0,
    "model.drop_path": 0.3,
    "model.norm": "batch_norm",
    "data.mixup": 0.4,
    "data.cutmix": 0.4,
    "data.crop_padding": 1,
    "data.flip": "alternating",
}


class StopAfter(StopRequest):
    """Asks for an end after so many steps."""

    def __init__(self, steps: int):
        super().__init__()
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        if self.left < 0:
            self.number = signal.SIGTERM
        return self.left < 0


def runner(path: Path) -> Runner:
    return Runner(Store(path), DataFolder.choose(None), CPU)


def content(record: Record) -> dict[str, Any]:
    """What has to be the same, bit for bit: everything but times."""
    history = [{k: v for k, v in line.items() if k != "seconds"} for line in record.history()]
    predictions = {key: (array.dtype, array.tobytes()) for key, array in record.predictions().items()}
    timed = ("seconds", "started", "ended", "peak_memory_bytes", "checksums")
    rest = {key: value for key, value in record.data.items() if key not in timed}
    return {"history": history, "predictions": predictions, **rest}


# Sums in another order: 66 steps at a peak learning rate of 2e-2 make 4e-6 of it.
ROUNDING = 1e-4


def make_request(spec: RunSpec, results: Path, **options: Any) -> RunRequest:
    return RunRequest(spec.with_execution(), str(results), None, "cpu", "a run", spec.run_id, **options)


def trained_by(spec: RunSpec, results: Path, **options: Any) -> Record:
    assert execute(make_request(spec, results, **options), StopRequest()) == RunResult(spec.run_id, "recorded")
    record = Store(results).read(spec.run_id)
    assert record is not None
    return record


def assert_equal_to_rounding(record: Record, other: Record) -> None:
    assert (record.run_id, record.status, other.status) == (other.run_id, "ok", "ok")
    assert record.data["images_seen"] == other.data["images_seen"]
    assert len(record.history()) == len(other.history())
    for line, expected in zip(record.history(), other.history(), strict=True):
        for key in ("epoch", "step", "lr"):
            assert line[key] == expected[key]
        for key in ("train_loss", "val_loss"):
            assert line[key] == pytest.approx(expected[key], rel=ROUNDING), key
    ours, theirs = record.predictions(), other.predictions()
    assert np.array_equal(ours["label"], theirs["label"])
    assert (ours["predicted"] != theirs["predicted"]).mean() < 0.01
    assert np.abs(ours["confidence"] - theirs["confidence"]).max() < 1e-3
