"""Tests over images: do the trained models of a row and of the baseline differ on the same images?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from metaformer_ablate.analysis.tables.types import ImageTest
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.status import RunState
from metaformer_ablate.records.store import Store
from metaformer_ablate.statistics import images
from metaformer_ablate.statistics.stats import holm
from metaformer_ablate.tasks.base import Metric, Task

if TYPE_CHECKING:
    import numpy as np

Arrays = Mapping[str, "np.ndarray"]


def test_on_images(
    runs: Mapping[str, Sequence[RunState]], base: str, store: Store, task: Task, metric: Metric
) -> dict[str, ImageTest]:
    """The test of each row against the baseline, where the predictions are of the same images and the task says of each
    image whether it is right, or gives it a score.

    A run whose predictions cannot be read is left out; `store.problems` says so. Raises RequestError for a metric that
    is not what the task says of an image.
    """
    if metric != task.reported:
        raise RequestError(
            f"images: the test over images is of {task.reported.name}, found the metric {metric.name}; "
            f"allowed: {task.reported.name}, or a table without the test"
        )
    if any(state.status == "diverged" for state in runs[base]):
        return {}
    baseline = _predictions(runs[base], store)
    predictions = task.part("predictions")
    found: dict[str, ImageTest] = {}
    for name, states in runs.items():
        if name == base or any(state.status == "diverged" for state in states):
            continue
        here = _predictions([state for state in states if state.seed in baseline], store)
        if not here:
            continue
        if any(not predictions.same_images(here[seed], baseline[seed]) for seed in here):
            found[name] = ImageTest(None, None, "none: the predictions are of other images")
            continue
        scores, theirs = ({seed: predictions.per_image(side[seed]) for seed in here} for side in (here, baseline))
        if any(score is None for score in (*scores.values(), *theirs.values())):
            continue
        if all(score.dtype == bool for score in (*scores.values(), *theirs.values())):
            test = images.compare_on_images(scores, theirs)
            found[name] = ImageTest(test.images, test.p, images.SIGN_FLIP, test.seeds, images.MCNEMAR)
        else:
            test = images.compare_scores_on_images(scores, theirs)
            found[name] = ImageTest(test.images, test.p, images.SCORES_SUMMED, test.seeds, images.SCORES)
    corrected = holm([test.p for test in found.values()])
    comparisons = sum(p is not None for p in corrected)
    for name, p in zip(found, corrected, strict=True):
        if p is not None:
            bound = p <= images.FLOOR_P
            told = images.FLOOR_P if bound else p
            found[name] = replace(found[name], p=told, comparisons=comparisons, p_is_bound=bound)
    return found


def _predictions(states: Sequence[RunState], store: Store) -> dict[int, Arrays]:
    """The arrays of the ok runs by seed."""
    found: dict[int, Arrays] = {}
    for state in states:
        if state.status == "ok" and state.record is not None:
            try:
                found[state.seed] = state.record.predictions()
            except RequestError as error:
                store.problems[state.run_id] = f"{error}; left out of the test over images"
    return found
