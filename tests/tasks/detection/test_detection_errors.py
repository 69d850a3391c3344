"""Which mistakes a detector makes, against cases worked out by hand; `ablate errors` of made-up runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result
from specs import fake_record, spec_of
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou

from metaformer_ablate.data import datasets, run_lengths
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.scenes import scene
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.detection.error_analysis import report_line
from metaformer_ablate.tasks.detection.error_analysis.kinds import (
    BOTH,
    CLASS,
    IGNORED,
    NOTHING,
    PLACE,
    RIGHT,
    TWICE,
    best_score,
    match,
    overlap,
)
from metaformer_ablate.tasks.detection.error_analysis.summary import summary
from metaformer_ablate.tasks.detection.examples import SCENES
from metaformer_ablate.tasks.detection.metrics import IOU_THRESHOLDS, RECALL_THRESHOLDS, Evaluation, measure

SIDE, COUNT = 96, 40


def arrays_of(found: list[tuple[dict[str, Any], dict[str, Any]]], masks: bool = False) -> dict[str, np.ndarray]:
    evaluation = Evaluation(masks)
    for detections, truth in found:
        evaluation.add({name: torch.as_tensor(np.array(values)) for name, values in detections.items()}, truth)
    return {name: values.numpy() for name, values in evaluation.arrays().items()}


def image(
    truths: list[tuple[list[float], int]], found: list[tuple[list[float], int, float]], crowds: tuple[int, ...] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Truths (box, label) and detections (box, label, score) of one image of 100 x 100."""
    detections = {
        "boxes": np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4),
        "labels": np.array([label for _, label, _ in found], dtype=np.int64),
        "scores": np.array([score for _, _, score in found], dtype=np.float32),
    }
    boxes = np.array([box for box, _ in truths], dtype=np.float64).reshape(-1, 4)
    return detections, {
        "image_id": 1,
        "size": (100, 100),
        "boxes": boxes,
        "labels": np.array([label for _, label in truths], dtype=np.int64),
        "area": (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        "iscrowd": np.isin(np.arange(len(truths)), crowds),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of mistakes


def test_each_kind_of_mistake() -> None:
    truths = [([0, 0, 20, 20], 1), ([50, 50, 90, 90], 2), ([0, 60, 30, 90], 3)]
    found = [
        ([0, 0, 20, 20], 1, 0.9),  # right
        ([0, 0, 20, 19], 1, 0.8),  # the same once more
        ([50, 50, 90, 90], 1, 0.7),  # in the place of class 2
        ([0, 60, 30, 72], 3, 0.6),  # IoU 0.4
        ([50, 50, 70, 70], 1, 0.5),  # IoU 0.25 with class 2
        ([60, 0, 80, 20], 1, 0.4),  # nothing there
        ([49, 50, 90, 90], 2, 0.3),  # right, though less sure than that of another class
    ]
    (matched,) = match(arrays_of([image(truths, found)]))
    assert matched.kind.tolist() == [RIGHT, TWICE, CLASS, PLACE, BOTH, NOTHING, RIGHT]
    assert matched.truth.tolist() == [0, 0, 1, 2, 1, -1, 1]
    assert matched.found(0.0).tolist() == [0, 6, -1] and matched.found(0.35).tolist() == [0, -1, -1]
    assert matched.taken_for(0.0).tolist() == [-1, -1, -1] and matched.taken_for(0.35).tolist() == [-1, 2, -1]
    assert matched.false(0.5).tolist() == [1, 2, 3, 4]


def test_the_surest_detection_of_a_thing_is_the_right_one() -> None:
    found = [([0, 0, 20, 17], 1, 0.5), ([0, 0, 20, 20], 1, 0.4), ([0, 0, 20, 15], 1, 0.9)]
    (matched,) = match(arrays_of([image([([0, 0, 20, 20], 1)], found)]))
    assert matched.kind.tolist() == [TWICE, TWICE, RIGHT]


def test_what_lies_within_a_crowd_is_ignored() -> None:
    truths = [([0, 0, 60, 60], 1), ([70, 70, 90, 90], 1)]
    found = [([5, 5, 15, 15], 1, 0.9), ([5, 5, 15, 15], 2, 0.8), ([70, 70, 90, 90], 1, 0.7)]
    (matched,) = match(arrays_of([image(truths, found, crowds=(0,))]))
    assert matched.kind.tolist() == [IGNORED, NOTHING, RIGHT] and matched.truths.tolist() == [1]


def test_images_without_things_or_detections() -> None:
    empty, blind, free = match(
        arrays_of([image([], []), image([([0, 0, 9, 9], 1)], []), image([], [([0, 0, 9, 9], 1, 0.5)])])
    )
    assert not len(empty.kind) and blind.found(0).tolist() == [-1] and free.kind.tolist() == [NOTHING]
    assert best_score([empty, blind, free]) == 1.0


def test_overlap_is_that_of_torchvision() -> None:
    draw = np.random.RandomState(0)
    corners = draw.rand(2, 12, 2, 2) * 50
    one, other = (np.sort(part, axis=1).reshape(-1, 4) for part in corners)
    np.testing.assert_allclose(overlap(one, other), box_iou(torch.tensor(one), torch.tensor(other)).numpy(), atol=1e-12)
    inside = overlap(np.array([[0, 0, 10, 10.0]]), np.array([[0, 0, 5, 100.0]]), of_first=True)
    assert inside.tolist() == [[0.5]]


def test_the_score_is_the_one_of_the_highest_f1() -> None:
    truths = [([i * 20, 0, i * 20 + 10, 10], 0) for i in range(4)]
    right = [([i * 20, 0, i * 20 + 10, 10], 0, score) for i, score in enumerate((0.9, 0.6, 0.3))]
    wrong = [([0, 50 + i, 10, 60 + i], 0, 0.4) for i in range(6)]
    # F1: 2 of 5 from 0.9 on, 4 of 6 from 0.6 on, 4 of 12 from 0.4 on, 6 of 13 from 0.3 on
    assert best_score(match(arrays_of([image(truths, [*right, *wrong])]))) == pytest.approx(0.6)


# ---------------------------------------------------------------------------------------------------------------------
# A run


def predictions(seed: int, skill: float) -> dict[str, np.ndarray]:
    """Of the first test scenes: of each digit a box, more or less in place, the more right the more skilled; 9 is taken
    for 4 half of the time, and boxes are a fifth too large."""
    draw, found = np.random.RandomState(seed), []
    for i in range(COUNT):
        truth = scene(0, "test", i, SIDE, SCENES)
        boxes, labels, scores, masks = [], [], [], []
        for box, label, mask in zip(truth.boxes, truth.labels, truth.masks, strict=True):
            if draw.rand() > skill:
                continue
            middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * 1.2
            middle = middle + draw.normal(0, 1, 2)
            boxes.append([*(middle - half), *(middle + half)])
            labels.append(4 if label == 9 and draw.rand() < 0.5 else label)
            scores.append(0.5 + draw.rand() / 2)
            masks.append(mask)
        if draw.rand() < 0.3:
            boxes.append([1, 1, 12, 14])
            labels.append(draw.randint(10))
            scores.append(draw.rand() / 2)
            masks.append(np.zeros((SIDE, SIDE)))
        codes = run_lengths.encode(truth.masks)
        detections = {
            "boxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
            "labels": np.array(labels, dtype=np.int64),
            "scores": np.array(scores, dtype=np.float32),
            "masks": np.array(masks, dtype=bool).reshape(-1, SIDE, SIDE),
        }
        area = truth.masks.sum(axis=(1, 2)).astype(float)
        crowd = np.zeros(len(area), dtype=bool)
        target = {"image_id": i, "size": (SIDE, SIDE), "boxes": truth.boxes, "labels": truth.labels, "area": area}
        found.append((detections, target | {"iscrowd": crowd, "codes": codes}))
    return arrays_of(found, masks=True)


def detection_spec(seed: int = 0, **settings: Any) -> RunSpec:
    return spec_of({"data.image_size": SIDE, "model.init_from": None, **settings}, recipe="scenes_detection", seed=seed)


def record_of(store: Store, spec: RunSpec, arrays: dict[str, np.ndarray]) -> Record:
    metrics = {name: float(value) for name, value in measure(map_to_tensors(arrays)).items()}
    line = {"epoch": 1, "step": 9, "lr": 1e-3, "train_loss": 2.0, **{f"val_{name}": v for name, v in metrics.items()}}
    return fake_record(
        store,
        spec,
        fingerprint=DataFolder.choose(None).fingerprint("scenes_detection"),
        predictions=arrays,
        metrics=metrics,
        history=[line | {"seconds": 6.0}],
        task="detection",
    )


def map_to_tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Record, Record]:
    """A good run and a poor one, of a data set of fewer scenes."""
    facts = datasets.DATASETS["scenes_detection"]
    monkeypatch.setitem(datasets.DATASETS, "scenes_detection", replace(facts, test_images=COUNT))
    store = Store(tmp_path / "results")
    good, poor = predictions(0, 0.9), predictions(1, 0.5)
    return record_of(store, detection_spec(), good), record_of(store, detection_spec(1), poor)


def test_the_summary_counts_what_was_made_up(records: tuple[Record, Record]) -> None:
    run = records[0]
    found, arrays = summary(run), run.predictions()
    things = len(arrays["truth_label"])
    assert found["images"] == COUNT and found["truths"] == things and not found["warnings"]
    confusion = np.array(found["confusion"])
    assert confusion[:-1].sum() == things and np.trace(confusion[:-1]) == found["found"]
    assert confusion[:-1].sum(axis=1).tolist() == np.bincount(arrays["truth_label"], minlength=10).tolist()
    (pair, *_) = found["pairs"]
    assert (pair["label_name"], pair["predicted_name"]) == ("9", "4") and pair["count"] == confusion[9, 4]
    false = found["detections"] - found["found"]
    assert false == found["false"] == sum(line["count"] for line in found["kinds"][:-1])
    for line in found["sizes"]:
        if line["truths"]:
            assert line["size"] == pytest.approx(120, abs=4)  # a fifth too large on each side
    assert found["sizes"][2]["truths"] == 0 and found["sizes"][2]["box_ap"] is None
    worst = [line["f1"] for line in found["worst"]]
    assert worst == sorted(worst) and len({line["index"] for line in found["worst"]}) == len(worst)


def test_average_precision_per_class_is_that_of_torchmetrics(records: tuple[Record, Record]) -> None:
    arrays = records[0].predictions()
    metric = MeanAveragePrecision(
        iou_thresholds=IOU_THRESHOLDS,
        rec_thresholds=RECALL_THRESHOLDS,
        class_metrics=True,
        backend="faster_coco_eval",
    )
    ends = [np.cumsum(arrays[name])[:-1] for name in ("detections", "truths")]
    parts = {name: np.split(arrays[name], ends[0]) for name in ("box", "score", "label")}
    truths = {name: np.split(arrays[f"truth_{name}"], ends[1]) for name in ("box", "label", "area")}
    for i in range(COUNT):
        metric.update(
            [
                {
                    "boxes": torch.tensor(parts["box"][i]),
                    "scores": torch.tensor(parts["score"][i]),
                    "labels": torch.tensor(parts["label"][i]).long(),
                }
            ],
            [
                {
                    "boxes": torch.tensor(truths["box"][i]).float(),
                    "labels": torch.tensor(truths["label"][i]).long(),
                    "area": torch.tensor(truths["area"][i]),
                }
            ],
        )
    expected = metric.compute()
    lines = {line["class"]: line["box_ap"] for line in summary(records[0])["classes"]}
    for label, ap in zip(expected["classes"].tolist(), expected["map_per_class"].tolist(), strict=True):
        assert lines[label] is None if ap < 0 else lines[label] == pytest.approx(100 * ap, abs=1e-3)


def test_errors_draws_pictures_and_says_it_in_words(
    records: tuple[Record, Record], ablate: Callable[..., Result], tmp_path: Path
) -> None:
    run, other = records
    done = ablate("errors", run.run_id, "--results", "results", "--out", "out")
    assert done.code == 0, done.err
    assert "9 misclassified as 4" in done.out and "Box AP" in done.out and "Mask AP" in done.out
    result = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert result["figures"] == [f"{name}.png" for name in ("kinds", "confusion", "classes", "sizes", "pictures")]
    for name in result["figures"]:
        assert (tmp_path / "out" / name).stat().st_size > 5000
    assert result["worst"][0]["name"].startswith("test scene ")

    done = ablate("errors", run.run_id, "--against", other.run_id, "--results", "results", "--out", "two", "--json")
    assert done.code == 0, done.err
    against = done.json["against"]
    things = result["truths"]
    assert against["both"] + against["only_first"] + against["only_second"] + against["neither"] == things
    assert against["only_first"] > against["only_second"] and against["difference"] > 0
    assert against["both"] + against["only_first"] == result["found"]
    assert (tmp_path / "two" / "against.png").is_file()


def test_what_does_not_go_is_said_in_one_sentence(
    records: tuple[Record, Record], ablate: Callable[..., Result], tmp_path: Path
) -> None:
    run, other = records
    words = ("--results", "results")
    assert "--probe is 'blur'" in ablate("errors", run.run_id, "--probe", "blur", *words).sentence
    assert "against itself" in ablate("errors", run.run_id, "--against", run.run_id, *words).sentence
    changed = other.predictions()
    changed["truth_box"] = changed["truth_box"] + 1
    other = record_of(Store(tmp_path / "results"), detection_spec(2), changed)
    assert "hold other annotations" in ablate("errors", run.run_id, "--against", other.run_id, *words).sentence
    changed["label"] = changed["label"] + 7
    other = record_of(Store(tmp_path / "results"), detection_spec(3), changed)
    assert "allowed: 0 to 9" in ablate("errors", other.run_id, *words).sentence


def test_the_report_has_a_line(records: tuple[Record, Record]) -> None:
    (none, pairs), (recall, text), (precision, _) = report_line(records[0])
    found = summary(records[0])
    assert none is None and "takes 9 for 4" in pairs
    assert recall == found["recall"] and text == f"{recall:.1f}" and precision == found["precision"]
