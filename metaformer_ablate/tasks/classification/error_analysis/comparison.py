"""Two runs on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.data.datasets import DatasetInfo
from metaformer_ablate.errors import RequestError
from metaformer_ablate.statistics.stats import mcnemar
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.classification.error_analysis.accuracy import accuracy
from metaformer_ablate.tasks.classification.error_analysis.summary import WORST, worst_mistakes
from metaformer_ablate.tasks.classification.predictions import facts_of, per_image, read_predictions, same_images
from metaformer_ablate.tasks.compared import check_same_data, differences, model_name

if TYPE_CHECKING:
    from numpy.typing import NDArray


MCNEMAR = "exact McNemar test, two-sided, over the images that one of them gets right"


MCNEMAR_QUESTION = (
    "whether these two trained models differ on images like these; whether their architectures or settings differ is "
    "another question, which needs several seeds of each (ablate table)"
)


def comparison(run: RecordedRun, other: RecordedRun, *, worst: int = WORST) -> dict[str, Any]:
    """What one of two runs gets right and the other wrong, image by image, as plain values.

    `only_first` and `only_second` count the images that only `run` or only `other` gets right; the examples of
    each are the most confident mistakes of the run that is wrong. Raises RequestError unless both runs were evaluated
    on the same images.
    """
    if run.run_id == other.run_id:
        raise RequestError(f"--against: run {run.run_id} against itself; allowed: another run")
    first, second = run.spec(), other.spec()
    check_same_data((run, other), (first, second))
    ours, theirs = read_predictions(run), read_predictions(other)
    if not same_images(ours, theirs):
        raise RequestError(
            f"--against: runs {run.run_id} and {other.run_id} hold other labels ({len(ours['label'])} and "
            f"{len(theirs['label'])} images), so they were not evaluated on the same images in the same order"
        )
    facts = facts_of(first["data"])
    right, right2 = per_image(ours), per_image(theirs)
    only_first, only_second = right & ~right2, right2 & ~right
    both_wrong = ~right & ~right2
    return {
        "first": {"run_id": run.run_id, "model": model_name(first), "seed": first["seed"], **accuracy(right)},
        "second": {"run_id": other.run_id, "model": model_name(second), "seed": second["seed"], **accuracy(right2)},
        "differ_in": differences(first, second),
        "both_right": int((right & right2).sum()),
        "only_first": int(only_first.sum()),
        "only_second": int(only_second.sum()),
        "both_wrong": int(both_wrong.sum()),
        "both_wrong_alike": int((both_wrong & (ours["predicted"] == theirs["predicted"])).sum()),
        "difference": 100 * (int(right.sum()) - int(right2.sum())) / len(right),
        "p": mcnemar(int(only_first.sum()), int(only_second.sum())),
        "method": MCNEMAR,
        "question": MCNEMAR_QUESTION,
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
