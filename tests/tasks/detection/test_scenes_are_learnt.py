"""A few hundred steps of the recipe `scenes_detection` from random weights: minutes, so slow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result

from metaformer_ablate.records.store import Store


@pytest.mark.slow
@pytest.mark.parametrize("head", ["retinanet", pytest.param("mask_rcnn", marks=pytest.mark.fuzz)])
def test_a_few_hundred_steps_find_digits(head: str, ablate: Callable[..., Result], tmp_path: Path) -> None:
    """500 steps, evaluated after 312 and at the end."""
    (tmp_path / "experiments").mkdir()
    rows = "title: One row\nbaseline: pooling\nrows:\n  pooling: {label: Pooling, set: {}}\n"
    (tmp_path / "experiments" / "one_row.yaml").write_text(rows)
    words = ("train.steps=500", "train.warmup_epochs=0", f"task.head={head}", "--recipe", "scenes_detection")
    done = ablate("run", "one_row", *words, "--results", "results")
    assert done.code == 0, done.err
    (record,) = Store(tmp_path / "results")
    first, last = record.history()
    assert last["train_loss"] < 0.9 * first["train_loss"]
    # Boxes by chance have less than 1.
    for name in ("box_ap50", "mask_ap50") if head == "mask_rcnn" else ("box_ap50",):
        assert last[f"val_{name}"] > max(8, first[f"val_{name}"]), name
