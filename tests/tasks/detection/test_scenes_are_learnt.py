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
    (tmp_path / "experiments").mkdir()
    rows = "title: One row\nbaseline: pooling\nrows:\n  pooling: {label: Pooling, set: {}}\n"
    (tmp_path / "experiments" / "one_row.yaml").write_text(rows)
    losses, found = [], []
    for steps in (20, 500):
        words = (f"train.steps={steps}", "train.warmup_epochs=0", f"task.head={head}")
        done = ablate("run", "one_row", *words, "--recipe", "scenes_detection", "--results", f"results{steps}")
        assert done.code == 0, done.err
        (record,) = Store(tmp_path / f"results{steps}")
        losses.append(record.history()[-1]["train_loss"])
        found.append({name: record.value(name) for name in ("box_ap50", "mask_ap50")})
    assert losses[1] < (0.7 if head == "retinanet" else 0.9) * losses[0]  # one has four losses, two of them small
    few, many = found
    assert few["box_ap50"] < 5 < 10 < many["box_ap50"]  # type: ignore[operator]
    if head == "mask_rcnn":
        assert many["mask_ap50"] > 10  # type: ignore[operator]
