"""The mistakes of a trained model, from the predictions of its record alone. Loads neither torch nor matplotlib.

Shares (accuracies, confidences, intervals, calibration errors) are in percent. Intervals are 95% Wilson intervals of a
share over the images: they say how far this trained model's accuracy is known from these images, and nothing about
another seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.data.datasets import DatasetInfo
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.classification.error_analysis.accuracy import accuracy, by_class
from metaformer_ablate.tasks.classification.error_analysis.calibration import calibration
from metaformer_ablate.tasks.classification.predictions import Arrays, per_image, read_predictions
from metaformer_ablate.tasks.error_analysis.runs import about_run, check_metric, facts_of_run

if TYPE_CHECKING:
    from numpy.typing import NDArray


WORST = 24  # mistakes on a sheet


PAIRS = 10


# The names in probes.py, which loads torch.
PROBE_NAMES = ("scale", "resolution", "crop", "shift", "rotate", "blur", "noise")


def summary(run: RecordedRun, *, worst: int = WORST) -> dict[str, Any]:
    """What a run gets wrong, as plain values: needs its spec and predictions, no data and no weights.

    Keys: the run (`run_id`, `dataset`, `split`, `data_fingerprint`, `model`), its accuracy, `classes`, `confusion`
    (a row per label, a column per prediction), `pairs` (the most frequent mistakes), `calibration`, `mistakes` (the
    most confident ones, with the index in the evaluation split) and `warnings`. Raises RequestError as
    `read_predictions` does.
    """
    predictions = read_predictions(run)
    labels, predicted = predictions["label"], predictions["predicted"]
    spec = run.spec()
    facts = facts_of_run(run)
    right = per_image(predictions)
    confusion = np.bincount(labels * facts.num_classes + predicted, minlength=facts.num_classes**2)
    confusion = confusion.reshape(facts.num_classes, facts.num_classes)
    whole = accuracy(right)
    warnings = check_metric(run, "top1", whole["accuracy"], f"are {whole['accuracy']:.2f}% right")
    smoothing, mixed = spec["train"]["label_smoothing"], spec["data"]["mixup"] or spec["data"]["cutmix"]
    softened = [f"label smoothing {smoothing:g}"] * bool(smoothing) + ["mixed images"] * bool(mixed)
    return {
        **about_run(run),
        **whole,
        "classes": [
            {**line, "predicted": int(confusion[:, k].sum())} for k, line in enumerate(by_class(right, labels, facts))
        ],
        "confusion": confusion.tolist(),
        "pairs": _pairs(confusion, facts),
        "calibration": calibration(predictions["confidence"], right) | {"trained_with": softened},
        "mistakes": worst_mistakes(np.flatnonzero(~right), predictions, facts, worst),
        "warnings": warnings,
    }


def _pairs(confusion: NDArray[np.int64], facts: DatasetInfo) -> list[dict[str, Any]]:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    found = []
    for label, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if count := int(wrong[label, predicted]):
            of = int(confusion[label].sum())
            found.append({**_named(label, predicted, facts), "count": count, "of": of, "share": 100 * count / of})
    return found


def _named(label: Any, predicted: Any, facts: DatasetInfo) -> dict[str, Any]:
    return {
        "label": int(label),
        "label_name": facts.class_name(int(label)),
        "predicted": int(predicted),
        "predicted_name": facts.class_name(int(predicted)),
    }


def worst_mistakes(
    candidates: NDArray[np.int64], predictions: Arrays, facts: DatasetInfo, count: int
) -> list[dict[str, Any]]:
    """The most confident of some images, by their indices; of equals the first."""
    labels, predicted, confidence = (predictions[name] for name in ("label", "predicted", "confidence"))
    order = candidates[np.argsort(-confidence[candidates], kind="stable")][:count]
    return [
        {"index": int(i), **_named(labels[i], predicted[i], facts), "confidence": 100 * float(confidence[i])}
        for i in order
    ]
