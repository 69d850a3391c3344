"""The mistakes of a trained model, from the predictions of its record alone. Loads neither torch nor matplotlib.

Shares are in percent of pixels that count. They say what this trained model does on these images, and nothing about
another seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.error_analysis.runs import about_run, check_metric, facts_of_run
from metaformer_ablate.tasks.segmentation.metrics import Arrays, measure, share_of
from metaformer_ablate.tasks.segmentation.predictions import per_image, read_predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray


WORST = 24  # images in the list


PAIRS = 10


# A class in an image, by the share of the image that it fills.
AREAS = (("small", 0.0, 1.0), ("medium", 1.0, 10.0), ("large", 10.0, 100.0))


def summary(run: RecordedRun, *, worst: int = WORST) -> dict[str, Any]:
    """What a run gets wrong, as plain values: needs its spec and predictions, no data and no weights.

    Keys: the run (`run_id`, `dataset`, `split`, `data_fingerprint`, `model`), its metrics, `classes`, `confusion` (in
    pixels, a row per true class), `pairs` (the most frequent confusions), `areas` (by how much of an image a class
    fills), `worst` (images by their mean IoU, the worst first, with the index in the evaluation split) and `warnings`.
    Raises RequestError as `read_predictions` does.
    """
    predictions = read_predictions(run)
    names = facts_of_run(run).class_names
    confusion = predictions["confusion"]
    if len(confusion) != len(names):
        raise RequestError(f"{run.folder / 'predictions.npz'}: holds {len(confusion)} classes; allowed: {len(names)}")
    metrics = measure(confusion)
    warnings = check_metric(run, "miou", metrics["miou"], f"have an mIoU of {metrics['miou']:.2f}%")
    return {
        **about_run(run),
        "images": len(predictions["truth"]),
        "pixels": int(confusion.sum()),
        **metrics,
        "classes": _classes(predictions, names),
        "confusion": confusion.tolist(),
        "pairs": _pairs(confusion, names),
        "areas": _areas(predictions),
        "worst": worst_images(per_image(predictions), predictions, names, worst),
        "warnings": warnings,
    }


def plain(value: Any) -> float | None:
    """A number for JSON: None for NaN."""
    return None if np.isnan(value) else float(value)


def _classes(predictions: Arrays, names: list[str]) -> list[dict[str, Any]]:
    """IoU, recall and precision of each class, and `size`: predicted pixels in percent of the true ones."""
    confusion = predictions["confusion"]
    right, truth, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    columns = {
        "iou": share_of(right, truth + predicted - right),
        "recall": share_of(right, truth),
        "precision": share_of(right, predicted),
        "size": share_of(predicted, truth),
    }
    return [
        {
            "class": k,
            "name": name,
            "images": int((predictions["truth"][:, k] > 0).sum()),
            "pixels": int(truth[k]),
            "predicted": int(predicted[k]),
            **{key: plain(values[k]) for key, values in columns.items()},
        }
        for k, name in enumerate(names)
    ]


def _pairs(confusion: NDArray[np.int64], names: list[str]) -> list[dict[str, Any]]:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    found = []
    for label, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if pixels := int(wrong[label, predicted]):
            of = int(confusion[label].sum())
            named = {"label": int(label), "label_name": names[label]}
            named |= {"predicted": int(predicted), "predicted_name": names[predicted]}
            found.append({**named, "pixels": pixels, "of": of, "share": 100 * pixels / of})
    return found


def _areas(predictions: Arrays) -> list[dict[str, Any]]:
    """What is found of classes that fill little, some or much of their image: pixels of all of them together.

    `size` is how many pixels they are given in percent of those they have: above 100 they are drawn too large.
    """
    intersection, union, truth = (predictions[name] for name in ("intersection", "union", "truth"))
    filled = share_of(truth, truth.sum(1, keepdims=True).repeat(truth.shape[1], axis=1))
    lines = []
    for name, above, to in AREAS:
        inside = (truth > 0) & (filled > above) & (filled <= to)
        right, whole, true = (int(a[inside].sum()) for a in (intersection, union, truth))
        given = whole - true + right
        lines.append(
            {
                "area": name,
                "above": above,
                "to": to,
                "count": int(inside.sum()),
                "iou": 100 * right / whole if whole else None,
                "recall": 100 * right / true if true else None,
                "size": 100 * given / true if true else None,
            }
        )
    return lines


def worst_images(
    scores: NDArray[np.float64], predictions: Arrays, names: list[str], count: int
) -> list[dict[str, Any]]:
    """The images with the lowest scores, by their indices; of equals the first."""
    lines = []
    for i in np.argsort(scores, kind="stable")[:count].tolist():
        intersection, truth = predictions["intersection"][i], predictions["truth"][i]
        missed = truth - intersection
        k = int(missed.argmax())
        lines.append(
            {
                "index": i,
                "iou": float(scores[i]),
                "pixel_accuracy": plain(share_of(intersection.sum(), truth.sum())),
                "most_missed": names[k] if missed[k] else None,
            }
        )
    return lines
