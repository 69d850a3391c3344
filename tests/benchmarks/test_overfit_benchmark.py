"""The benchmarks that learn images by heart run, and evaluate what they train on."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_folders import write_coco
from mask_folders import write_folder

from benchmarks import overfit

# The test's folder holds fewer and smaller images of other classes.
COCO_WORDS = (
    "data.num_classes=10",
    "data.train_images=12",
    "data.test_images=12",
    "task.short_side=64",
    "task.long_side=96",
    "train.warmup_epochs=0",
)


@pytest.mark.slow
def test_it_gives_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_DATA", str(write_folder(tmp_path)))
    (line,) = overfit.camvid(epochs=1)
    assert (line["epoch"], line["steps"]) == (1, 4) and 0 <= line["miou"] <= 100  # type: ignore[operator]


@pytest.mark.slow
def test_it_gives_a_curve_of_detection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_DATA", str(write_coco(tmp_path / "coco")))
    (line,) = overfit.coco(1, COCO_WORDS)
    assert (line["epoch"], line["steps"]) == (1, 2) and 0 <= line["box_ap50"] <= 100  # type: ignore[operator]


def test_without_data_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path))
    assert list(overfit.camvid()) == [] == list(overfit.coco())
