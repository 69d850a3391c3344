"""Accuracy with its interval: of all, per class, per object size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.data.datasets import DatasetInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray


SIZE_BINS = 5


_Z95 = 1.959963984540054  # the 97.5% quantile of the standard normal


def wilson(right: int, n: int) -> list[float] | None:
    """The 95% Wilson score interval (1927) of `right` of `n`, in percent; None of no images."""
    if n == 0:
        return None
    share, z2 = right / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At none and at all right one end is exact; rounding would put it a hair beyond.
    return [0.0 if right == 0 else 100 * (centre - half), 100.0 if right == n else 100 * (centre + half)]


def accuracy(right: NDArray[np.bool_]) -> dict[str, Any]:
    """images, correct, accuracy and ci95 of an array that says of each image whether it was right."""
    n, correct = len(right), int(right.sum())
    return {
        "images": n,
        "correct": correct,
        "accuracy": 100 * correct / n if n else None,
        "ci95": wilson(correct, n),
    }


def by_class(right: NDArray[np.bool_], labels: NDArray[np.int64], facts: DatasetInfo) -> list[dict[str, Any]]:
    """`accuracy` for each class of a data set."""
    return [{"class": k, "name": facts.class_name(k), **accuracy(right[labels == k])} for k in range(facts.num_classes)]


def by_object_size(
    size: NDArray[np.float64], labels: NDArray[np.int64], right: NDArray[np.bool_], bins: int = SIZE_BINS
) -> list[dict[str, Any]]:
    """Accuracy by how much of the picture the thing fills, a share [N].

    The bins are fifths of each class by size, so that each holds the classes in equal shares: small things are compared
    with large ones of the same kind. `size` is the mean share of a bin, in percent.
    """
    place = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members[np.argsort(size[members], kind="stable")]] = np.arange(len(members)) * bins // len(members)
    lines = []
    for i in range(bins):
        inside = place == i
        mean = 100 * float(size[inside].mean()) if inside.any() else None
        lines.append({"fifth": i + 1, "size": mean, **accuracy(right[inside])})
    return lines


def share(line: Mapping[str, Any]) -> str:
    """`87.31% [86.64, 87.95]`."""
    if line["accuracy"] is None:
        return "no images"
    return f"{line['accuracy']:.2f}% [{line['ci95'][0]:.2f}, {line['ci95'][1]:.2f}]"
