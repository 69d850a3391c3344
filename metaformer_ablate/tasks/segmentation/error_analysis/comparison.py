"""Two runs on the same images."""

from __future__ import annotations

from typing import Any

import numpy as np

from metaformer_ablate.statistics.images import score_signs
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.error_analysis.runs import (
    QUESTION,
    check_same_images,
    differences,
    facts_of_run,
    side_of,
    specs_of_two,
)
from metaformer_ablate.tasks.segmentation.error_analysis.summary import plain
from metaformer_ablate.tasks.segmentation.metrics import measure, share_of
from metaformer_ablate.tasks.segmentation.predictions import per_image, read_predictions, same_images

METHOD = "exact sign-flip test, two-sided, over the images of the difference of their mean IoU"


EXAMPLES = 12


def comparison(run: RecordedRun, other: RecordedRun) -> dict[str, Any]:
    """Where one of two runs is better than the other, image by image and class by class, as plain values.

    Raises RequestError unless both runs were evaluated on the same images.
    """
    first, second = specs_of_two(run, other)
    ours, theirs = read_predictions(run), read_predictions(other)
    images = [len(ours["truth"]), len(theirs["truth"])]
    check_same_images((run, other), same_images(ours, theirs), "masks", images)
    scores, scores2 = per_image(ours), per_image(theirs)
    gap = scores - scores2
    order = np.argsort(gap, kind="stable")
    metrics = measure(ours["confusion"]), measure(theirs["confusion"])
    return {
        "first": {**side_of(run), **metrics[0]},
        "second": {**side_of(other), **metrics[1]},
        "differ_in": differences(first, second),
        "difference": metrics[0]["miou"] - metrics[1]["miou"],
        "first_better": int((gap > 0).sum()),
        "second_better": int((gap < 0).sum()),
        "mean_gap": float(gap.mean()),
        "p": score_signs(gap),
        "method": METHOD,
        "question": QUESTION,
        "classes": _by_class(ours, theirs, facts_of_run(run).class_names),
        "examples": {
            "first_better": _lines(order[::-1], scores, scores2, gap > 0),
            "second_better": _lines(order, scores, scores2, gap < 0),
        },
    }


def _lines(order: Any, scores: Any, scores2: Any, fits: Any) -> list[dict[str, Any]]:
    chosen = [i for i in order.tolist() if fits[i]][:EXAMPLES]
    return [{"index": i, "first": float(scores[i]), "second": float(scores2[i])} for i in chosen]


def _by_class(ours: Any, theirs: Any, names: list[str]) -> list[dict[str, Any]]:
    ious = [share_of(found["intersection"].sum(0), found["union"].sum(0)) for found in (ours, theirs)]
    return [
        {"class": k, "name": name, "first": plain(ious[0][k]), "second": plain(ious[1][k])}
        for k, name in enumerate(names)
    ]
