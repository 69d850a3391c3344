"""Two runs on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.detection.error_analysis.kinds import Matched, best_score, match
from metaformer_ablate.tasks.detection.error_analysis.summary import (
    average_precisions,
    counts,
    read_checked,
)
from metaformer_ablate.tasks.detection.predictions import same_images
from metaformer_ablate.tasks.error_analysis.runs import (
    check_same_images,
    differences,
    facts_of_run,
    side_of,
    specs_of_two,
)

WHY_NO_TEST = (
    "no test: average precision is one number per data set, and objects in one image are not independent; whether the "
    "rows differ is asked of several seeds of each (ablate table)"
)
EXAMPLES = 12


def comparison(run: RecordedRun, other: RecordedRun) -> dict[str, Any]:
    """What one of two runs finds and the other does not, as plain values, each at the score of its own highest F1.

    Raises RequestError unless both runs were evaluated on the same images.
    """
    specs = specs_of_two(run, other)
    names = facts_of_run(run).class_names
    arrays = read_checked(run, names), read_checked(other, names)
    images = [len(predictions["image_id"]) for predictions in arrays]
    check_same_images((run, other), same_images(*arrays), "annotations", images)
    matched = [match(predictions) for predictions in arrays]
    scores = [best_score(images) for images in matched]
    metrics, of_class = zip(*(average_precisions(predictions, len(names)) for predictions in arrays), strict=True)
    hit = [[found.found(score) >= 0 for found in images] for images, score in zip(matched, scores, strict=True)]
    first, second = (np.concatenate(found) for found in hit)
    sides = zip(("first", "second"), (run, other), metrics, matched, scores, strict=True)
    return {
        **{side: {**side_of(which), **values, **counts(found, score)} for side, which, values, found, score in sides},
        "differ_in": differences(*specs),
        "difference": metrics[0]["box_ap"] - metrics[1]["box_ap"],
        "both": int((first & second).sum()),
        "only_first": int((first & ~second).sum()),
        "only_second": int((second & ~first).sum()),
        "neither": int((~first & ~second).sum()),
        "test": WHY_NO_TEST,
        "classes": [
            {"class": k, "name": name, "first": of_class[0][k]["box_ap"], "second": of_class[1][k]["box_ap"]}
            for k, name in enumerate(names)
        ],
        "examples": {"only_first": _most(hit[0], hit[1], matched[0]), "only_second": _most(hit[1], hit[0], matched[0])},
    }


def _most(one: Sequence[Any], other: Sequence[Any], images: Sequence[Matched]) -> list[dict[str, Any]]:
    """The images in which one run finds most that the other does not."""
    more = np.array([int((a & ~b).sum()) for a, b in zip(one, other, strict=True)])
    chosen = [i for i in np.argsort(-more, kind="stable")[:EXAMPLES].tolist() if more[i]]
    return [{"index": i, "image_id": int(images[i].part["image_id"]), "things": int(more[i])} for i in chosen]
