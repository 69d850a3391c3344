"""The mistakes of a trained detector, from the predictions of its record alone. Shares are in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.detection.error_analysis.kinds import KINDS, PLACE, RIGHT, Matched, best_score, match
from metaformer_ablate.tasks.detection.predictions import Arrays, read_predictions
from metaformer_ablate.tasks.error_analysis.runs import about_run, check_metric, facts_of_run

WORST = 24  # images in the list
PAIRS = 10
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}  # COCO's, in pixels


def read_checked(run: RecordedRun, names: Sequence[str]) -> Arrays:
    """The predictions of a run of so many classes. Raises RequestError as `read_predictions` does, and for others."""
    predictions = read_predictions(run)
    largest = max(int(predictions[name].max(initial=-1)) for name in ("label", "truth_label"))
    if largest >= len(names):
        raise RequestError(f"{run.folder / 'predictions.npz'}: holds label {largest}; allowed: 0 to {len(names) - 1}")
    return predictions


def summary(run: RecordedRun, *, worst: int = WORST) -> dict[str, Any]:
    """What a run gets wrong, as plain values: needs its spec and predictions, no data and no weights.

    Keys: the run (`run_id`, `dataset`, `split`, `data_fingerprint`, `model`), its `metrics`, the `score` from which on
    detections are counted (the one of the highest F1), `kinds` of mistakes, `classes`, `confusion` (a row per true
    class and one for nothing, a column per class and one for missed), `pairs` (the most frequent confusions), `sizes`,
    `worst` (the images by their F1, the worst first, with the index in the evaluation split) and `warnings`. Raises
    RequestError as `read_checked` does.
    """
    names = facts_of_run(run).class_names
    predictions = read_checked(run, names)
    images = match(predictions)
    score = best_score(images)
    metrics, of_class = average_precisions(predictions, len(names))
    warnings = check_metric(run, "box_ap", metrics["box_ap"], f"have a box AP of {metrics['box_ap']:.2f}%")
    confusion = confusions(images, score, len(names))
    return {
        **about_run(run),
        "images": len(images),
        "metrics": metrics,
        **counts(images, score),
        "kinds": _kinds(images, score),
        "classes": _classes(images, score, names, of_class),
        "confusion": confusion.tolist(),
        "pairs": frequent_pairs(confusion, names),
        "sizes": _sizes(images, score, metrics),
        "worst": _worst(images, score, names, worst),
        "warnings": warnings,
    }


def average_precisions(predictions: Arrays, classes: int) -> tuple[dict[str, float], list[dict[str, float | None]]]:
    """The metrics, and for each class AP and AP50 of boxes, None where it has no truth."""
    from metaformer_ablate.tasks.detection.metrics import average_precision, metrics_of

    figures = average_precision(predictions, curves=True)
    found = figures["bbox_precision"][:, :, :, 0, -1].numpy()  # [IoU threshold, recall threshold, class]
    place = {int(label): i for i, label in enumerate(figures["classes"].reshape(-1).tolist())}
    lines: list[dict[str, float | None]] = []
    for k in range(classes):
        curve = found[:, :, place[k]] if k in place else np.full(found.shape[:2], -1.0)
        ap, ap50 = (100 * float(part.mean()) if (part > -1).all() else None for part in (curve, curve[0]))
        lines.append({"box_ap": ap, "box_ap50": ap50})
    return {name: float(value) for name, value in metrics_of(figures).items()}, lines


def counts(images: Sequence[Matched], score: float) -> dict[str, Any]:
    """`truths` there are and `found`, `detections` and how many of them are `false`, at scores from `score` on."""
    truths = sum(len(found.truths) for found in images)
    right = sum(int((found.found(score) >= 0).sum()) for found in images)
    false = sum(len(found.false(score)) for found in images)
    return {
        "score": score,
        "truths": truths,
        "found": right,
        "detections": right + false,
        "false": false,
        "recall": share(right, truths),
        "precision": share(right, right + false),
        "f1": share(2 * right, truths + right + false),
    }


def share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _kinds(images: Sequence[Matched], score: float) -> list[dict[str, Any]]:
    """How many detections are of each kind of mistake, and how many truths are missed altogether."""
    false = np.concatenate([found.kind[found.false(score)] for found in images])
    lines = [{"kind": text, "count": int((false == kind).sum())} for kind, text in KINDS.items()]
    missed = 0
    for found in images:
        near = np.unique(found.truth[found.false(score)])  # of which there is a detection that is wrong
        missed += int(((found.found(score) < 0) & ~np.isin(np.arange(len(found.truths)), near)).sum())
    return [*lines, {"kind": "missed altogether", "count": missed}]


def _classes(
    images: Sequence[Matched], score: float, names: Sequence[str], of_class: list[dict[str, float | None]]
) -> list[dict[str, Any]]:
    labels = np.concatenate([found.truth_labels for found in images])
    hit = np.concatenate([found.found(score) >= 0 for found in images])
    false = np.concatenate([found.part["label"][found.false(score)] for found in images])
    lines = []
    for k, name in enumerate(names):
        truths, right, wrong = int((labels == k).sum()), int(hit[labels == k].sum()), int((false == k).sum())
        recall, precision = share(right, truths), share(right, right + wrong)
        counted = {"truths": truths, "found": right, "false": wrong, "recall": recall, "precision": precision}
        lines.append({"class": k, "name": name, **of_class[k], **counted})
    return lines


def confusions(images: Sequence[Matched], score: float, classes: int) -> NDArray[np.int64]:
    """[classes + 1, classes + 1]: truths of a class by what they are taken for, the last column those that nothing is
    in the place of; the last row detections that are over nothing."""
    confusion = np.zeros((classes + 1, classes + 1), dtype=np.int64)
    for found in images:
        right, other, labels = found.found(score), found.taken_for(score), found.part["label"]
        predicted = np.full(len(right), classes)
        predicted[other >= 0] = labels[other[other >= 0]]
        predicted[right >= 0] = labels[right[right >= 0]]
        np.add.at(confusion, (found.truth_labels, predicted), 1)
        false = found.false(score)
        nothing = false[found.truth[false] < 0]
        np.add.at(confusion, (classes, labels[nothing]), 1)
    return confusion


def frequent_pairs(confusion: NDArray[np.int64], names: Sequence[str]) -> list[dict[str, Any]]:
    wrong = confusion[:-1, :-1].copy()
    np.fill_diagonal(wrong, 0)
    found = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS].tolist():
        label, predicted = divmod(place, len(names))
        if count := int(wrong[label, predicted]):
            of = int(confusion[label].sum())
            named = {"label": label, "label_name": names[label], "predicted": predicted}
            found.append(
                {**named, "predicted_name": names[predicted], "count": count, "of": of, "share": share(count, of)}
            )
    return found


def _sizes(images: Sequence[Matched], score: float, metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """AP, recall and how large things are drawn, by COCO's sizes.

    `size` is the side of a detected box, the root of its area, in percent of the true one: the geometric mean over
    detections that are right or out of place. Above 100 things are drawn too large.
    """
    areas = np.concatenate([found.part["truth_area"][found.truths] for found in images])
    hit = np.concatenate([found.found(score) >= 0 for found in images])
    drawn_area, drawn = [], []
    for found in images:
        chosen = np.flatnonzero(np.isin(found.kind, (RIGHT, PLACE)) & (found.part["score"] >= score))
        truths = found.truths[found.truth[chosen]]
        drawn_area.append(found.part["truth_area"][truths])
        sides = [_area(found.part[name][rows]) for name, rows in (("box", chosen), ("truth_box", truths))]
        drawn.append(np.sqrt(sides[0] / np.maximum(sides[1], 1e-9)))
    of, ratio = np.concatenate(drawn_area), np.concatenate(drawn)
    lines = []
    for name, (above, below) in SIZES.items():
        inside = (areas >= above) & (areas < below)
        ratios = ratio[(of >= above) & (of < below) & (ratio > 0)]
        right, there = int(hit[inside].sum()), int(inside.sum())
        counted = {"truths": there, "found": right, "recall": share(right, there), "drawn": len(ratios)}
        size = 100 * float(np.exp(np.log(ratios).mean())) if len(ratios) else None
        lines.append({"size_name": name, "box_ap": metrics.get(f"box_ap_{name}"), **counted, "size": size})
    return lines


def _area(boxes: NDArray[Any]) -> NDArray[np.float64]:
    return (boxes[:, 2:].astype(np.float64) - boxes[:, :2]).clip(min=0).prod(axis=1)


def _worst(images: Sequence[Matched], score: float, names: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The images with the lowest F1, of equals those with most mistakes; images without truths and detections are none
    of them."""
    lines: list[dict[str, Any]] = []
    for i, found in enumerate(images):
        right, false = found.found(score) >= 0, len(found.false(score))
        if not len(right) + false:
            continue
        missed = [names[label] for label in found.truth_labels[~right]]
        counted = {"truths": len(right), "found": int(right.sum()), "false": false, "missed": missed}
        f1 = share(2 * int(right.sum()), len(right) + int(right.sum()) + false)
        lines.append({"index": i, "image_id": int(found.part["image_id"]), "f1": f1, **counted})
    lines.sort(key=lambda line: (line["f1"], -len(line["missed"]) - line["false"]))
    return lines[:count]
