"""Average precision of made-up detections, against pycocotools; and what a record keeps of an evaluation."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folders import SAMPLE, annotation_file, needs_coco, write_coco
from pycocotools import mask as reference
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from metaformer_ablate.data import run_lengths
from metaformer_ablate.data.coco_annotations import CocoSplit
from metaformer_ablate.tasks.detection.examples import CocoExamples
from metaformer_ablate.tasks.detection.metrics import Evaluation, measure
from metaformer_ablate.tasks.detection.predictions import check, per_image, per_image_parts, same_images
from metaformer_ablate.tasks.detection.transforms import Truth

Found = dict[str, torch.Tensor]


def noisy(truth: Truth, classes: int, draw: np.random.RandomState) -> Found:
    """None to three shifted detections of each thing, one in five of another class, and one of nothing."""
    masks = run_lengths.decode(truth.codes or [], truth.size)
    boxes, labels, shown = [], [], []
    for box, label, mask in zip(truth.boxes, truth.labels, masks, strict=True):
        for _ in range(draw.randint(4)):
            moved = box + draw.normal(0, 0.07, 4) * (box[2:] - box[:2]).mean()
            boxes.append([*moved[:2], *np.maximum(moved[2:], moved[:2] + 1)])
            labels.append(label if draw.rand() < 0.8 else draw.randint(classes))
            shown.append(np.roll(mask, draw.randint(-2, 3, 2), (0, 1)))
    boxes.append([1, 2, 20, 30])
    labels.append(draw.randint(classes))
    shown.append(np.pad(np.ones((28, 19)), ((2, truth.size[0] - 30), (1, truth.size[1] - 20))))
    return {
        "boxes": torch.tensor(np.array(boxes), dtype=torch.float32),
        "labels": torch.tensor(labels),
        "scores": torch.tensor(draw.rand(len(boxes)), dtype=torch.float32),
        "masks": torch.tensor(np.array(shown)).bool(),
    }


def target_of(truth: Truth) -> dict[str, Any]:
    return {
        "image_id": truth.image_id,
        "size": truth.size,
        "boxes": truth.boxes,
        "labels": truth.labels,
        "area": truth.areas,
        "iscrowd": truth.crowds,
        "codes": truth.codes,
    }


def pairs(path: Path) -> tuple[CocoSplit, list[tuple[Found, Truth]]]:
    split, draw = CocoSplit.of(path, masks=True), np.random.RandomState(0)
    examples = CocoExamples(split, path.parent, np.arange(len(split)), masks=True)
    truths = [examples.truth(i) for i in range(len(examples))]
    return split, [(noisy(truth, len(split.categories), draw), truth) for truth in truths]


def evaluated(found: list[tuple[Found, Truth]], masks: bool = True) -> Evaluation:
    evaluation = Evaluation(masks)
    for detections, truth in found:
        evaluation.add(detections, target_of(truth))
    return evaluation


def of_pycocotools(path: Path, split: CocoSplit, found: list[tuple[Found, Truth]], kind: str) -> list[float]:
    """AP, AP50, AP75 and AP by size, from 0 to 1."""
    results = []
    for detections, truth in found:
        of = (detections[name].numpy() for name in ("boxes", "labels", "scores", "masks"))
        for box, label, score, mask in zip(*of, strict=True):
            entry = {"image_id": truth.image_id, "category_id": split.category_ids[label], "score": float(score)}
            left, top, right, bottom = box.astype(float).tolist()
            code = reference.encode(np.asfortranarray(mask.astype(np.uint8)))
            entry |= {"bbox": [left, top, right - left, bottom - top]} if kind == "bbox" else {"segmentation": code}
            results.append(entry)
    with contextlib.redirect_stdout(io.StringIO()):
        truths = COCO(str(path))
        run = COCOeval(truths, truths.loadRes(results), kind)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats[:6].tolist()


def check_against_pycocotools(path: Path) -> None:
    split, found = pairs(path)
    metrics = measure(evaluated(found).arrays())
    sizes = ("small", "medium", "large")
    for kind, of in (("bbox", "box"), ("segm", "mask")):
        names = [f"{of}_ap", f"{of}_ap50", f"{of}_ap75", *(f"box_ap_{size}" for size in sizes if of == "box")]
        for name, expected in zip(names, of_pycocotools(path, split, found, kind), strict=False):
            if expected < 0:
                assert name not in metrics
            else:
                assert 0 < expected < 1 and metrics[name].item() / 100 == pytest.approx(expected, abs=1e-6)
    boxes = measure(evaluated(found, masks=False).arrays())
    assert boxes == {name: value for name, value in metrics.items() if name.startswith("box")}


def test_it_is_that_of_pycocotools(tmp_path: Path) -> None:
    # Crowds, codes and polygons; areas that are not those of boxes; an image without anything.
    check_against_pycocotools(annotation_file(write_coco(tmp_path / "coco")))


@needs_coco
@pytest.mark.parametrize("split", ["train", "val"])
def test_it_is_that_of_pycocotools_on_cocos_images(split: str) -> None:
    check_against_pycocotools(SAMPLE / f"instances_{split}.json")


def test_what_is_found_is_100_and_what_is_not_is_0(tmp_path: Path) -> None:
    _, found = pairs(annotation_file(write_coco(tmp_path / "coco")))
    perfect, blind = [], []
    for _, truth in found:
        seen = truth.take(~truth.crowds)
        boxes = torch.tensor(seen.boxes, dtype=torch.float32)
        masks = torch.tensor(run_lengths.decode(seen.codes or [], truth.size)).bool()
        whole = {"boxes": boxes, "labels": torch.tensor(seen.labels), "scores": torch.ones(len(boxes)), "masks": masks}
        perfect.append((whole, truth))
        blind.append(({name: values[:0] for name, values in whole.items()}, truth))
    metrics = measure(evaluated(perfect).arrays())
    assert metrics["box_ap"] == metrics["mask_ap"] == metrics["box_ap75"] == 100
    assert "box_ap_large" not in metrics  # of 96 x 96 pixels and more there is nothing
    assert measure(evaluated(blind).arrays())["box_ap"] == 0


# ---------------------------------------------------------------------------------------------------------------------
# What a record keeps


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    _, found = pairs(annotation_file(write_coco(tmp_path_factory.mktemp("kept") / "coco")))
    return {name: values.numpy() for name, values in evaluated(found).arrays().items()}


def test_shares_of_two_devices_put_together_are_the_whole(tmp_path: Path) -> None:
    _, found = pairs(annotation_file(write_coco(tmp_path / "coco")))
    whole, one, other = (evaluated(part).arrays() for part in (found, found[:5], found[5:]))
    joined = {name: torch.cat([one[name], other[name]]) for name in whole}
    assert all(
        torch.equal(joined[name], values) and joined[name].dtype == values.dtype for name, values in whole.items()
    )
    assert measure(joined) == measure(whole)


def test_what_is_kept_passes_its_check_and_is_found_again(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    check(arrays)
    np.savez_compressed(tmp_path / "predictions.npz", **arrays)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as stored:
        again = dict(stored)
    check(again)
    assert same_images(arrays, again) and per_image(arrays) is None
    split, found = pairs(annotation_file(write_coco(tmp_path / "coco")))
    for part, (detections, truth) in zip(per_image_parts(again), found, strict=True):
        assert part["image_id"] == truth.image_id and tuple(part["size"]) == truth.size
        assert np.array_equal(part["box"], detections["boxes"].numpy())
        assert np.array_equal(part["truth_box"], truth.boxes) and part["truth_codes"] == truth.codes
        assert np.array_equal(run_lengths.decode(part["codes"], truth.size), detections["masks"].numpy())
    assert len(split) == len(found)


@pytest.mark.parametrize(
    ("name", "of", "words"),
    [
        ("score", lambda a: a[:-1], "score has"),
        ("score", lambda a: a * np.nan, "score holds what is not a finite number"),
        ("box", lambda a: a[:, :2], "box is float32"),
        ("label", lambda a: a - 100, "a label is below 0"),
        ("label", lambda a: a.astype(float), "label is float64"),
        ("detections", lambda a: -a, "detections holds -"),
        ("truths", lambda a: a + 1, "entries; allowed: one for each of"),
        ("mask_length", lambda a: a + 1, "mask_length does not divide its codes"),
        ("truth_mask_code", None, "lacks truth_mask_code"),
        ("image_id", lambda a: a[1:], "entries; allowed: one for each of"),
    ],
)
def test_what_no_run_would_write_is_refused(arrays: Mapping[str, np.ndarray], name: str, of: Any, words: str) -> None:
    changed = {key: values for key, values in arrays.items() if key != name or of is not None}
    if of is not None:
        changed[name] = of(arrays[name])
    with pytest.raises(ValueError, match=words):
        check(changed)


def test_other_annotations_are_other_images(arrays: dict[str, np.ndarray]) -> None:
    assert not same_images(arrays, arrays | {"truth_box": arrays["truth_box"] + 1})
    assert not same_images(arrays, arrays | {"image_id": arrays["image_id"] + 1})
    assert same_images(arrays, arrays | {"score": arrays["score"] / 2})
    assert json.dumps(sorted(arrays))
