"""What a record keeps of the predictions: pixels per image and class, and the confusion matrix of all images.

`intersection`, `union` and `truth` are [N, classes], in pixels; `confusion` is [classes, classes], a row per true
class. Pixels that count for nothing are in none of them. The label maps themselves are not kept: they are large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.segmentation.metrics import Arrays, mean_of_present, share_of

PER_IMAGE = ("intersection", "union", "truth")


def check(predictions: Arrays, classes: int | None = None) -> None:
    """Raises ValueError unless these are intersection, union, truth and confusion, and fit together.

    With the number of classes they have to be of so many.
    """
    names = (*PER_IMAGE, "confusion")
    if missing := [name for name in names if name not in predictions]:
        raise ValueError(f"lacks {', '.join(missing)}; allowed: {', '.join(names)}")
    arrays = [predictions[name] for name in names]
    shape = arrays[0].shape
    fit = len(shape) == 2 and all(shape) and {a.shape for a in arrays[:3]} == {shape} and shape[1] == len(arrays[3])
    if not fit or arrays[3].shape != (shape[1], shape[1]) or any(a.dtype.kind not in "ui" for a in arrays):
        shown = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in predictions.items())
        raise ValueError(f"found {shown[:200]}; allowed: whole numbers, a line per image and an entry per class")
    if classes is not None and shape[1] != classes:
        raise ValueError(f"holds {shape[1]} classes; allowed: {classes}")
    intersection, union, truth, confusion = (array.astype(np.int64) for array in arrays)
    sums_fit = np.array_equal(intersection.sum(0), np.diagonal(confusion)) and np.array_equal(
        truth.sum(0), confusion.sum(1)
    )
    if not sums_fit or (intersection > truth).any() or (truth > union).any() or confusion.min() < 0:
        raise ValueError("the pixels of the images do not add up to those of the confusion matrix")


def per_image(predictions: Arrays) -> NDArray[np.float64]:
    """[N]: the mean IoU of each image in percent, over the classes that it has or was given; 100 for one in which no
    pixel counts, which no model can get wrong."""
    mean = mean_of_present(share_of(predictions["intersection"], predictions["union"]))
    return np.nan_to_num(mean, nan=100.0)


def same_images(one: Arrays, other: Arrays) -> bool:
    """Whether two evaluations were of the same images in the same order, as far as the pixels of each class tell."""
    return np.array_equal(one["truth"], other["truth"])


def read_predictions(run: RecordedRun) -> dict[str, NDArray[Any]]:
    """The arrays of a run, as int64. Raises RequestError where it has none, or such as it cannot have left."""
    if run.status != "ok":
        raise RequestError(
            f"run {run.run_id} {run.status} ({run.data.get('reason')}): it has no predictions; "
            "allowed: a run with status ok"
        )
    return {name: array.astype(np.int64) for name, array in run.predictions().items()}
