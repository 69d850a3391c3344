"""Two runs on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.data.datasets import DatasetInfo
from metaformer_ablate.statistics.images import mcnemar
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.classification.error_analysis.accuracy import accuracy
from metaformer_ablate.tasks.classification.error_analysis.summary import WORST, worst_mistakes
from metaformer_ablate.tasks.classification.predictions import per_image, read_predictions, same_images
from metaformer_ablate.tasks.error_analysis.runs import (
    QUESTION,
    check_same_images,
    differences,
    facts_of_run,
    side_of,
    specs_of_two,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


MCNEMAR = "exact McNemar test, two-sided, over the images that one of them gets right"


def comparison(run: RecordedRun, other: RecordedRun, *, worst: int = WORST) -> dict[str, Any]:
    """What one of two runs gets right and the other wrong, image by image, as plain values.

    `only_first` and `only_second` count the images that only `run` or only `other` gets right; the examples of
    each are the most confident mistakes of the run that is wrong. Raises RequestError unless both runs were evaluated
    on the same images.
    """
    first, second = specs_of_two(run, other)
    ours, theirs = read_predictions(run), read_predictions(other)
    images = [len(ours["label"]), len(theirs["label"])]
    check_same_images((run, other), same_images(ours, theirs), "labels", images)
    facts = facts_of_run(run)
    right, right2 = per_image(ours), per_image(theirs)
    only_first, only_second = right & ~right2, right2 & ~right
    both_wrong = ~right & ~right2
    return {
        "first": {**side_of(run), **accuracy(right)},
        "second": {**side_of(other), **accuracy(right2)},
        "differ_in": differences(first, second),
        "both_right": int((right & right2).sum()),
        "only_first": int(only_first.sum()),
        "only_second": int(only_second.sum()),
        "both_wrong": int(both_wrong.sum()),
        "both_wrong_alike": int((both_wrong & (ours["predicted"] == theirs["predicted"])).sum()),
        "difference": 100 * (int(right.sum()) - int(right2.sum())) / len(right),
        "p": mcnemar(int(only_first.sum()), int(only_second.sum())),
        "method": MCNEMAR,
        "question": QUESTION,
        "classes": _by_class(ours["label"], only_first, only_second, facts),
        "examples": {
            "only_first": worst_mistakes(np.flatnonzero(only_first), theirs, facts, worst),
            "only_second": worst_mistakes(np.flatnonzero(only_second), ours, facts, worst),
        },
    }


def _by_class(
    labels: NDArray[np.int64], only_first: NDArray[np.bool_], only_second: NDArray[np.bool_], facts: DatasetInfo
) -> list[dict[str, Any]]:
    return [
        {
            "class": k,
            "name": facts.class_name(k),
            "images": int((labels == k).sum()),
            "only_first": int(only_first[labels == k].sum()),
            "only_second": int(only_second[labels == k].sum()),
        }
        for k in range(facts.num_classes)
    ]
