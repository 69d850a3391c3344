"""Two runs on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.compared import check_same_data, differences, model_name
from metaformer_ablate.tasks.detection.error_analysis.kinds import Matched, best_score, match
from metaformer_ablate.tasks.detection.error_analysis.summary import (
    average_precisions,
    class_names,
    counts,
    read_checked,
)
from metaformer_ablate.tasks.detection.predictions import same_images

WHY_NO_TEST = (
    "no test: average precision is one number of a data set, and things in one image are not independent; whether the "
    "rows differ is asked of several seeds of each (ablate table)"
)
EXAMPLES = 12


def comparison(run: RecordedRun, other: RecordedRun) -> dict[str, Any]:
    """What one of two runs finds and the other does not, as plain values, each at the score of its own highest F1.

    Raises RequestError unless both runs were evaluated on the same images.
    """
    if run.run_id == other.run_id:
        raise RequestError(f"--against: run {run.run_id} against itself; allowed: another run")
    specs = run.spec(), other.spec()
    check_same_data((run, other), specs)
    names = class_names(specs[0]["data"])
    arrays = read_checked(run, names), read_checked(other, names)
    if not same_images(*arrays):
        raise RequestError(
            f"--against: runs {run.run_id} and {other.run_id} hold other annotations ({len(arrays[0]['image_id'])} and "
            f"{len(arrays[1]['image_id'])} images), so they were not evaluated on the same images in the same order"
        )
    matched = [match(predictions) for predictions in arrays]
    scores = [best_score(images) for images in matched]
    metrics, of_class = zip(*(average_precisions(predictions, len(names)) for predictions in arrays), strict=True)
    hit = [[found.found(score) >= 0 for found in images] for images, score in zip(matched, scores, strict=True)]
    first, second = (np.concatenate(found) for found in hit)
    sides = zip(("first", "second"), (run, other), specs, metrics, matched, scores, strict=True)
    return {
        **{
            side: {
                "run_id": r.run_id,
                "model": model_name(spec),
                "seed": spec["seed"],
                **values,
                **counts(images, score),
            }
            for side, r, spec, values, images, score in sides
        },
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
