"""Two runs on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.errors import RequestError
from metaformer_ablate.statistics.stats import mcnemar
from metaformer_ablate.tasks.classification.error_analysis.accuracy import accuracy
from metaformer_ablate.tasks.classification.error_analysis.summary import WORST, model_name, worst_mistakes
from metaformer_ablate.tasks.classification.predictions import facts_of, read_predictions

if TYPE_CHECKING:
    from metaformer_ablate.records.record import Record


MCNEMAR = "exact McNemar test, two-sided, over the images that one of them gets right"


MCNEMAR_QUESTION = (
    "whether these two trained models differ on images like these; whether their architectures or settings differ is "
    "another question, which needs several seeds of each (ablate table)"
)


def comparison(record: Record, other: Record, *, worst: int = WORST) -> dict[str, Any]:
    """What one of two runs gets right and the other wrong, image by image, as plain values.

    `only_first` and `only_second` count the images that only `record` or only `other` gets right; the examples of
    each are the most confident mistakes of the run that is wrong. Raises RequestError unless both runs were evaluated
    on the same images.
    """
    if record.run_id == other.run_id:
        raise RequestError(f"--against: run {record.run_id} against itself; allowed: another run")
    first, second = record.spec(), other.spec()
    _check_same_images(record, other, first, second)
    labels, predicted, confidence = read_predictions(record)
    labels2, predicted2, confidence2 = read_predictions(other)
    if not np.array_equal(labels, labels2):
        raise RequestError(
            f"--against: runs {record.run_id} and {other.run_id} hold other labels ({len(labels)} and {len(labels2)} "
            "images), so they were not evaluated on the same images in the same order"
        )
    facts = facts_of(first["data"])
    right, right2 = predicted == labels, predicted2 == labels
    only_first, only_second = right & ~right2, right2 & ~right
    both_wrong = ~right & ~right2
    return {
        "first": {"run_id": record.run_id, "model": model_name(first), "seed": first["seed"], **accuracy(right)},
        "second": {"run_id": other.run_id, "model": model_name(second), "seed": second["seed"], **accuracy(right2)},
        "differ_in": _differences(first, second),
        "both_right": int((right & right2).sum()),
        "only_first": int(only_first.sum()),
        "only_second": int(only_second.sum()),
        "both_wrong": int(both_wrong.sum()),
        "both_wrong_alike": int((both_wrong & (predicted == predicted2)).sum()),
        "difference": 100 * (int(right.sum()) - int(right2.sum())) / len(labels),
        "p": mcnemar(int(only_first.sum()), int(only_second.sum())),
        "method": MCNEMAR,
        "question": MCNEMAR_QUESTION,
        "classes": [
            {
                "class": k,
                "name": facts.class_name(k),
                "images": int((labels == k).sum()),
                "only_first": int(only_first[labels == k].sum()),
                "only_second": int(only_second[labels == k].sum()),
            }
            for k in range(facts.num_classes)
        ],
        "examples": {
            "only_first": worst_mistakes(np.flatnonzero(only_first), labels, predicted2, confidence2, facts, worst),
            "only_second": worst_mistakes(np.flatnonzero(only_second), labels, predicted, confidence, facts, worst),
        },
    }


def _check_same_images(record: Record, other: Record, first: Any, second: Any) -> None:
    marks = []
    for run, spec in ((record, first), (other, second)):
        marks.append((spec["data"]["name"], spec["data"]["evaluate_on"], run.data["data_fingerprint"]))
    if marks[0] == marks[1] and marks[0][2] is not None:
        return
    shown = [
        f"run {run.run_id} on {name} ({split}), data fingerprint {fingerprint or 'unknown'}"
        for run, (name, split, fingerprint) in zip((record, other), marks, strict=True)
    ]
    raise RequestError(
        f"--against: {'; '.join(shown)}; allowed: two runs of one data set, one split and one data fingerprint"
    )


def _differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> dict[str, list[Any]]:
    """{dotted path: [value there, value here]} of what two specs of one version set otherwise."""
    found: dict[str, list[Any]] = {}
    for key in sorted({*first, *second}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[prefix + key] = [a, b]
    return found
