"""What a record keeps of the predictions, as plain arrays: label, predicted and confidence of each evaluation image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer_ablate.data.datasets import facts_of
from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RecordedRun

Arrays = Mapping[str, NDArray[Any]]


def check(predictions: Arrays, classes: int | None = None) -> None:
    """Raises ValueError unless these are label, predicted and confidence, with an entry per evaluation image.

    With the number of classes, labels and predictions have to be below it, and confidences from 0 to 1.
    """
    names = ("label", "predicted", "confidence")
    if missing := [name for name in names if name not in predictions]:
        raise ValueError(f"lacks {', '.join(missing)}; allowed: label, predicted and confidence")
    label, predicted, confidence = (predictions[name] for name in names)
    listed = label.ndim == 1 and len(label) and label.shape == predicted.shape == confidence.shape
    kinds = "".join(array.dtype.kind for array in (label, predicted, confidence))
    if not listed or not re.fullmatch("[ui][ui]f", kinds):
        shown = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in predictions.items())
        raise ValueError(f"found {shown[:200]}; allowed: three lists of one length, an entry per image")
    if classes is None:
        return
    for name, array in (("label", label), ("predicted", predicted)):
        if array.min() < 0 or array.max() >= classes:
            raise ValueError(f"{name} goes from {array.min()} to {array.max()}; allowed: 0 to {classes - 1}")
    wide = confidence.astype(np.float64)
    if not ((wide >= 0) & (wide <= 1 + 1e-6)).all():
        raise ValueError(f"confidence holds {wide.min():g} to {wide.max():g}; allowed: 0 to 1")


def per_image(predictions: Arrays) -> NDArray[np.bool_]:
    """[N]: whether each evaluation image is right."""
    return np.asarray(predictions["label"] == predictions["predicted"])


def derive(predictions: Arrays) -> dict[str, float]:
    """The metrics that a record's predictions give: `balanced_accuracy`, in percent.

    The mean over classes of the share of their images that is right (scikit-learn's balanced_accuracy_score; Brodersen
    et al., ICPR 2010): each class counts alike, however many images it has. Classes without an image are left out.
    """
    label, right = predictions["label"].astype(np.int64), per_image(predictions)
    images = np.bincount(label)
    shares = np.bincount(label, right)[images > 0] / images[images > 0]
    return {"balanced_accuracy": 100 * float(np.mean(shares))}


def same_images(one: Arrays, other: Arrays) -> bool:
    """Whether two evaluations were of the same images in the same order, as far as their labels tell."""
    return np.array_equal(one["label"], other["label"])


def read_predictions(run: RecordedRun) -> dict[str, NDArray[Any]]:
    """label and predicted (int64) and confidence (float64, 0 to 1) of each evaluation image, in the split's order.

    Raises RequestError where the run has none, or where they cannot be what such a run leaves behind.
    """
    if run.status != "ok":
        raise RequestError(
            f"run {run.run_id} {run.status} ({run.data.get('reason')}): it has no predictions; "
            "allowed: a run with status ok"
        )
    arrays = run.predictions()
    try:
        check(arrays, facts_of(run.spec()["data"]).num_classes)
    except RequestError:
        raise
    except ValueError as error:
        raise RequestError(f"{run.folder / 'predictions.npz'}: {error}") from None
    return {
        "label": arrays["label"].astype(np.int64),
        "predicted": arrays["predicted"].astype(np.int64),
        "confidence": arrays["confidence"].astype(np.float64).clip(max=1),
    }
