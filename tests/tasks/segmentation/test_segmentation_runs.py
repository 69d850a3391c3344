"""Runs of segmentation by the command: records, tables, resumed runs, devices in parts, errors, scenes."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Result
from mask_folders import EXPERIMENT, ONE_ROW, RECIPE, write_folder
from PIL import Image

from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.tasks.segmentation.metrics import measure
from metaformer_ablate.tasks.segmentation.predictions import per_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images and masks, and the recipe and experiment of the helper where the command runs."""
    recipes = tmp_path / "experiments" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "rectangles.yaml").write_text(RECIPE)
    (tmp_path / "experiments" / "mixers.yaml").write_text(EXPERIMENT)
    (tmp_path / "experiments" / "one_row.yaml").write_text(ONE_ROW)
    return write_folder(tmp_path / "data")


WORDS = ("mixers", "--recipe", "rectangles", "--results", "results")


def records(tmp_path: Path, results: str = "results") -> list[Record]:
    return list(Store(tmp_path / results))


def test_classes_without_a_pixel_to_evaluate_on_are_told(folder: Path, ablate: Callable[..., Result]) -> None:
    """Of a mask of 0 and 255, the commonest of two classes, one counts for nothing: any map of it would be right."""
    words = ("run", "one_row", "--recipe", "rectangles", "--data", str(folder), "train.epochs=1")
    done = ablate(*words, "data.num_classes=6")
    assert done.code == 0 and "note: 2 of 6 classes have no pixel in the evaluated masks: 4, 5" in done.err, done.err
    for path in (folder / "annotations").glob("*/*.png"):
        held = np.asarray(Image.open(path))
        Image.fromarray(np.where(held == 1, 0, 255).astype(np.uint8)).save(path)
    done = ablate(*words, "data.num_classes=2")
    assert done.code == 2 and "Traceback" not in done.err
    assert (
        "error: of 2 classes only class 0 has pixels in the evaluated masks, and 255 is no class; allowed" in done.err
    )


def test_from_a_recipe_to_a_table_and_the_errors(folder: Path, ablate: Callable[..., Result], tmp_path: Path) -> None:
    data = ("--data", str(folder))
    done = ablate("run", *WORDS, *data, "--seeds", "2", "--keep-checkpoints")
    assert done.code == 0, done.err
    assert "mIoU" in done.out

    found = records(tmp_path)
    assert len(found) == 4 and {record.status for record in found} == {"ok"}
    for record in found:
        assert record.data["task"] == "segmentation" and record.data["data_fingerprint"]
        arrays = record.predictions()
        assert arrays["truth"].shape == (6, 4) and arrays["truth"].dtype == np.uint32
        for name, value in measure(arrays["confusion"]).items():
            assert record.value(name) == pytest.approx(value, rel=1e-5)
        assert record.spec()["data"]["image_size"] is None
        assert 0 < record.value("loss") < 10  # type: ignore[operator]
    pixels = {int(record.predictions()["confusion"].sum()) for record in found}
    masks = [np.asarray(Image.open(path)) for path in sorted((folder / "annotations" / "val").glob("*.png"))]
    assert pixels == {sum(int((mask != 255).sum()) for mask in masks)}

    table = ablate("table", *WORDS[:3], "--results", "results", "--images", "--json").json
    baseline, row = table["rows"]
    assert baseline["n"] == 2 and baseline["paper"]["miou"] == 60.0
    assert row["images"]["images"] == 6 and 0 < row["images"]["p"] <= 1
    by_row = {(r.spec()["model"]["token_mixer"][0], r.spec()["seed"]): per_image(r.predictions()) for r in found}
    for counted in row["images"]["seeds"]:
        gap = by_row["identity", counted["seed"]] - by_row["pooling", counted["seed"]]
        assert (counted["gained"], counted["lost"]) == (int((gap > 0).sum()), int((gap < 0).sum()))
    assert "mIoU" in ablate("table", *WORDS[:3], "--results", "results").out

    one, other = found[0].run_id, found[1].run_id
    done = ablate("errors", one, "--against", other, "--results", "results", *data, "--out", "errors")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "errors" / "errors.json").read_text())
    assert told["miou"] == pytest.approx(found[0].value("miou")) and len(told["classes"]) == 4
    assert [line["iou"] for line in told["worst"]] == sorted(line["iou"] for line in told["worst"])
    assert told["worst"][0]["name"].startswith("val") and told["weights"]["pixels_different"] == 0
    assert told["figures"] == ["confusion.png", "classes.png", "against.png", "masks.png"]
    for name in told["figures"]:
        assert Image.open(tmp_path / "errors" / name).size[0] > 300
    assert "Worst images" in done.out
    assert ablate("errors", one, "--results", "results", *data, "--probe", "blur").sentence == (
        "--probe is 'blur'; allowed for runs of segmentation: none"
    )
    assert ablate("export", one, "--results", "results").sentence == (
        "the task segmentation has no graph to export; allowed: a run of classification"
    )

    done = ablate("report", "--results", "results", "--out", "report.html")
    assert done.code == 0, done.err
    page = (tmp_path / "report.html").read_text()
    assert "mIoU" in page and "Top-1" not in page


def predictions_of(tmp_path: Path, results: str) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    (record,) = records(tmp_path, results)
    with (record.folder / "history.csv").open() as stream:
        return record.predictions(), [line[:-1] for line in csv.reader(stream)]


def test_loader_processes_change_nothing_and_parts_of_a_batch_only_rounding(
    folder: Path, ablate: Callable[..., Result], tmp_path: Path
) -> None:
    words = ("one_row", "--recipe", "rectangles", "--data", str(folder))
    ways = {
        "whole": (),
        "parts": ("train.micro_batch=2",),
        "loaders": ("data.workers=1",),
        "twice": ("train.grad_checkpointing=true",),
    }
    for results, more in ways.items():
        done = ablate("run", *words, *more, "--results", results)
        assert done.code == 0, done.err
    whole, history = predictions_of(tmp_path, "whole")
    loaders, same = predictions_of(tmp_path, "loaders")
    assert same == history and all(np.array_equal(whole[name], loaders[name]) for name in whole)
    for results in ("parts", "twice"):
        found, near = predictions_of(tmp_path, results)
        for line, other in zip(history[1:], near[1:], strict=True):
            assert [float(x) for x in other] == pytest.approx([float(x) for x in line], rel=0.02), results
        assert np.array_equal(found["truth"], whole["truth"])


@pytest.mark.usefixtures("folder")
def test_scenes_need_no_data(ablate: Callable[..., Result], tmp_path: Path) -> None:
    words = (
        "train.epochs=1",
        "train.batch_size=500",
        "data.image_size=32",
        "model.depths=[1,1,1,1]",
        "model.dims=[8,8,8,8]",
        "task.fpn_channels=8",
        "task.head_channels=8",
        "train.warmup_epochs=0",
    )
    args = ("one_row", *words, "--recipe", "scenes_segmentation", "--results", "results")
    done = ablate("run", *args)
    assert done.code == 0, done.err
    (record,) = records(tmp_path)
    assert record.predictions()["truth"].shape == (250, 11)
    assert math.isfinite(record.value("loss"))  # type: ignore[arg-type]
    assert record.data["at_chance"] is True  # four steps


def test_a_mask_that_cannot_be_meant_ends_the_command(folder: Path, ablate: Callable[..., Result]) -> None:
    path = folder / "annotations" / "train" / "train7.png"
    Image.fromarray(np.full((3, 3), 9, dtype=np.uint8)).save(path)
    done = ablate("run", "one_row", *WORDS[1:], "--data", str(folder))
    assert done.code == 2 and "Traceback" not in done.err
    last = done.err.strip().splitlines()[-1]
    assert last.startswith(f"error: {path}: is 3 x 3 pixels, and its image")


def test_a_mixer_of_one_resolution_is_not_applicable(folder: Path, ablate: Callable[..., Result]) -> None:
    out = ablate("show", "token_mixers", "--recipe", "rectangles").out
    assert "token_mixer random of stage 1 fits one resolution, and the images have many" in out


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_scenes_are_learnt(ablate: Callable[..., Result], tmp_path: Path) -> None:
    """Four of ten epochs of the recipe: 500 steps."""
    words = ("train.epochs=4", "--recipe", "scenes_segmentation", "--results", "results")
    done = ablate("run", "one_row", *words)
    assert done.code == 0, done.err
    (record,) = records(tmp_path)
    history = record.history()
    assert history[-1]["val_loss"] < history[0]["val_loss"] and history[-1]["train_loss"] < history[0]["train_loss"]
    # A map of the background alone has 7; the record's own test of chance is of that.
    assert history[-1]["val_miou"] > 15 and record.data["at_chance"] is False
