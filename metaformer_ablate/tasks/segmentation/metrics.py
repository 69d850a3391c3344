"""Metrics of label maps: counts per image, and what the counts of a whole evaluation come to. Loads no torch.

mIoU is that of mmsegmentation: one confusion matrix over the data set, pixels of 255 left out, IoU of a class =
intersection / union, the mean over the classes that truth or prediction have. Accuracies are its aAcc and mAcc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[Any]"]


def share_of(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    """[..., classes] pixels -> percent: IoU of intersection and union. NaN for a class with no pixel in the whole."""
    return np.where(whole > 0, 100.0 * part.astype(np.float64) / np.maximum(whole, 1), np.nan)


def mean_of_present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., classes] -> [...]: the mean of what is not NaN; NaN of nothing."""
    present = ~np.isnan(values)
    count = present.sum(-1)
    return np.where(count > 0, np.where(present, values, 0).sum(-1) / np.maximum(count, 1), np.nan)


def measure(confusion: NDArray[Any]) -> dict[str, float]:
    """miou, pixel_accuracy and mean_accuracy in percent of pixels [classes, classes], a row per true class.

    NaN where no pixel counts.
    """
    right, truth, predicted = np.diagonal(confusion), confusion.sum(1), confusion.sum(0)
    return {
        "miou": float(mean_of_present(share_of(right, truth + predicted - right))),
        "pixel_accuracy": float(share_of(right.sum(), truth.sum())),
        "mean_accuracy": float(mean_of_present(share_of(right, truth))),
    }


def at_chance(confusion: NDArray[Any]) -> bool:
    """Whether the mIoU is no more than that of a map of one class, whichever does best."""
    truth = confusion.sum(1)
    present = (truth > 0).sum()
    constant = 100 * truth.max() / max(truth.sum(), 1) / max(present, 1)
    return bool(measure(confusion)["miou"] <= constant + 1e-9)
