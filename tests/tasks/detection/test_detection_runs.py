"""Runs of detection by the command: records, tables, errors, runs that were stopped, devices in parts, scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coco_folders import COUNTS, annotation_file, change, write_coco
from conftest import Result
from disturbed import StopAfter, content, make_request
from PIL import Image

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.request import RunResult
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.runs.worker import execute
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tasks.detection.metrics import measure

# What a run of such a folder takes in a few seconds.
RECIPE = """
title: Digits in COCO's format
task: {{name: detection, head: {head}, short_side: 64, long_side: 96, fpn_channels: 16, head_norm: group_norm, {more}}}
model: {{depths: [1, 1, 1, 1], dims: [8, 8, 16, 16], head_dim: 8, layer_scale: 0.1, drop_path: 0.1}}
data: {{name: coco, image_size: null, num_classes: 10, train_images: 12, test_images: 6, flip: true, workers: 0}}
train: {{epochs: 2, batch_size: 4, lr: 5e-3, warmup_epochs: 0, threads: 1}}
"""
HEADS = {"retinanet": "", "mask_rcnn": "proposals: 50, box_samples: 16, fc_width: 32, mask_width: 8"}


EXPERIMENT = """
title: Pooling or nothing
baseline: pooling
rows:
  pooling: {label: Pooling, set: {}, paper: {box_ap: 36.2}}
  identity: {label: Identity, set: {model.token_mixer: identity}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A COCO folder, and recipes and experiment where the command runs."""
    recipes = tmp_path / "experiments" / "recipes"
    recipes.mkdir(parents=True)
    for head, more in HEADS.items():
        (recipes / f"{head}.yaml").write_text(RECIPE.format(head=head, more=more))
    (tmp_path / "experiments" / "mixers.yaml").write_text(EXPERIMENT)
    (tmp_path / "experiments" / "one_row.yaml").write_text(EXPERIMENT.partition("  identity")[0])
    monkeypatch.chdir(tmp_path)
    return write_coco(tmp_path / "data" / "coco").parent


def records(tmp_path: Path, results: str = "results") -> list[Record]:
    return list(Store(tmp_path / results))


def check_metrics(record: Record) -> None:
    arrays = record.predictions()
    found = {name: float(value) for name, value in measure({k: torch.tensor(v) for k, v in arrays.items()}).items()}
    assert record.data["metrics"] == pytest.approx(found, rel=1e-6)


def test_from_a_recipe_to_a_table_and_the_errors(folder: Path, ablate: Callable[..., Result], tmp_path: Path) -> None:
    words, data = ("mixers", "--recipe", "retinanet", "--results", "results"), ("--data", str(folder))
    done = ablate("run", *words, *data, "--seeds", "2", "--keep-checkpoints")
    assert done.code == 0, done.err
    assert "Box AP" in done.out and "of 12 images are not trained on, for nothing is annotated in them" in done.err

    found = records(tmp_path)
    assert len(found) == 4 and {record.status for record in found} == {"ok"}
    for record in found:
        assert record.data["task"] == "detection" and len(record.data["data_fingerprint"]) == 16
        check_metrics(record)
        assert "mask_ap" not in record.data["metrics"] and "box_ap_large" not in record.data["metrics"]
        assert record.predictions()["truths"].shape == (COUNTS["val"],)
        assert record.spec()["data"]["image_size"] is None

    table = ablate("table", *words, "--json").json
    assert [row["n"] for row in table["rows"]] == [2, 2] and table["rows"][0]["paper"]["box_ap"] == 36.2
    assert "Box AP" in ablate("table", *words).out and ablate("table", *words, "--metric", "box_ap50").code == 0

    one, other = found[0].run_id, found[1].run_id
    done = ablate("errors", one, "--against", other, "--results", "results", *data, "--out", "errors")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "errors" / "errors.json").read_text())
    assert told["metrics"]["box_ap"] == pytest.approx(found[0].value("box_ap"), rel=1e-6) and not told["warnings"]
    assert told["weights"]["repeated"] == told["weights"]["detections"]
    names = ["kinds", "confusion", "classes", "sizes", "against", "pictures"]
    assert told["figures"] == [f"{name}.png" for name in names]
    for name in told["figures"]:
        assert Image.open(tmp_path / "errors" / name).size[0] > 300
    sentence = ablate("export", one, "--results", "results").sentence
    assert sentence == "the task detection has no graph to export; allowed: a run of classification"

    done = ablate("report", "--results", "results", "--out", "report.html")
    assert done.code == 0, done.err
    page = (tmp_path / "report.html").read_text()
    assert "Box AP" in page and "Top-1" not in page


def runner(folder: Path, results: Path) -> Runner:
    return Runner(Store(results), DataFolder(folder, given=True), torch.device("cpu"))


@pytest.mark.parametrize("head", list(HEADS))
def test_a_run_that_is_stopped_anywhere_ends_as_one_that_was_not(head: str, folder: Path, tmp_path: Path) -> None:
    spec = plan("one_row", head, [], baseline_only=True).specs["pooling"]
    whole = runner(folder, tmp_path / "whole").run(spec)
    assert whole.status == "ok", whole.data["reason"]
    check_metrics(whole)
    assert ("mask_ap" in whole.data["metrics"]) == (head == "mask_rcnn")
    stops = 0
    while stops < 20:
        try:
            record = runner(folder, tmp_path / "stopped").run(spec, RunOptions(stop=StopAfter(0)))
            break
        except Interrupted:
            stops += 1
    assert 2 <= stops < 20
    assert content(record) == content(whole)


def losses(tmp_path: Path, results: str) -> tuple[list[float], Mapping[str, np.ndarray]]:
    (record,) = records(tmp_path, results)
    return [line["train_loss"] for line in record.history()], record.predictions()


def test_loader_processes_change_nothing_and_parts_of_a_batch_only_rounding(
    folder: Path, ablate: Callable[..., Result], tmp_path: Path
) -> None:
    words = ("one_row", "--recipe", "retinanet", "--data", str(folder), "model.drop_path=0.1")
    for results, more in (("whole", ()), ("parts", ("train.micro_batch=2",)), ("loaders", ("data.workers=2",))):
        done = ablate("run", *words, *more, "--results", results)
        assert done.code == 0, done.err
    whole, found = losses(tmp_path, "whole")
    same, loaders = losses(tmp_path, "loaders")
    assert same == whole and all(np.array_equal(found[name], loaders[name]) for name in found)
    parts, _ = losses(tmp_path, "parts")
    # Modified layer norm sees the padding, which is that of the larger batch or of its part.
    assert parts == pytest.approx(whole, rel=0.05)


@pytest.mark.slow
def test_scenes_need_no_data(ablate: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "one_row.yaml").write_text(EXPERIMENT.partition("  identity")[0])
    words = (
        "train.epochs=1",
        "train.batch_size=500",
        "train.warmup_epochs=0",
        "data.image_size=32",
        "model.depths=[1,1,1,1]",
        "model.dims=[8,8,8,8]",
        "model.init_from=null",
        "task.fpn_channels=8",
    )
    done = ablate("run", "one_row", *words, "--recipe", "scenes_detection", "--results", "results")
    assert done.code == 0, done.err
    (record,) = records(tmp_path)
    assert record.status == "ok" and record.predictions()["truths"].shape == (500,)
    check_metrics(record)


@pytest.mark.slow
@pytest.mark.parametrize("head", list(HEADS))
def test_two_devices_and_one_end_alike(head: str, folder: Path, tmp_path: Path) -> None:
    """Images of one size, so that padding is the same; each device evaluates half of them."""
    data = write_coco(tmp_path / "even" / "coco", sizes=((64, 96),)).parent
    found = []
    for devices in (1, 2):
        spec = plan("one_row", head, [f"train.devices={devices}"], baseline_only=True).specs["pooling"]
        results = tmp_path / str(devices)
        request = replace(make_request(spec, results), data=str(data))
        assert execute(request, StopRequest()) == RunResult(spec.run_id, "recorded")
        found += records(tmp_path, str(devices))
    alone, both = found
    assert alone.run_id == both.run_id and both.data["device"].startswith("2 x ")
    one, other = alone.predictions(), both.predictions()
    kept = ("image_id", "size", "truths", "truth_box", "truth_label", "truth_area", "truth_crowd")
    assert all(np.array_equal(one[name], other[name]) for name in kept)
    assert len(one["image_id"]) == COUNTS["val"]
    for line, expected in zip(both.history(), alone.history(), strict=True):
        assert line["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)


def test_bad_annotations_end_the_command(folder: Path, ablate: Callable[..., Result]) -> None:
    path = annotation_file(folder / "coco")
    change(path, annotations=lambda e: [{**e[0], "bbox": [0, 0, float("nan"), 5]}, *e[1:]])
    words = ("one_row", "--recipe", "retinanet", "--data", str(folder), "--results", "results")
    done = ablate("run", *words)
    assert done.code == 2 and f"error: {path}: annotation 1 has the bbox [0, 0, nan, 5]" in done.err
