"""Tests over images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.status import RunState
from metaformer_ablate.records.store import Store
from metaformer_ablate.statistics import stats
from metaformer_ablate.statistics.stats import holm
from metaformer_ablate.tasks.classification.predictions import per_image, same_images


def test_on_images(runs: Mapping[str, Sequence[RunState]], base: str, store: Store) -> dict[str, dict[str, Any]]:
    """Row to its tests over images against the baseline, where the predictions are of the same images. A run whose
    predictions cannot be read is left out, and `store.problems` says so."""
    if any(state.status == "diverged" for state in runs[base]):
        return {}
    baseline = _predictions(runs[base], store)
    found: dict[str, dict[str, Any]] = {}
    for name, states in runs.items():
        if name == base or any(state.status == "diverged" for state in states):
            continue
        answers = _predictions([state for state in states if state.seed in baseline], store)
        if not answers:
            continue
        if any(not same_images(answers[seed], baseline[seed]) for seed in answers):
            found[name] = {
                "images": None,
                "p": None,
                "method": "none: the predictions are of other images",
                "seeds": [],
            }
            continue
        right, theirs = ({seed: per_image(side[seed]) for seed in answers} for side in (answers, baseline))
        test = stats.compare_on_images(right, theirs)
        found[name] = {"images": test.images, "p": test.p, "method": stats.SIGN_FLIP, "seeds": list(test.seeds)}
        found[name]["seed_method"] = stats.MCNEMAR
    for name, p in zip(found, holm([test["p"] for test in found.values()]), strict=True):
        found[name]["p"] = p
    return found


def _predictions(states: Sequence[RunState], store: Store) -> dict[int, dict[str, Any]]:
    """The predictions of the ok runs by seed."""
    found = {}
    for state in states:
        if state.status == "ok" and state.record is not None:
            try:
                found[state.seed] = state.record.predictions()
            except RequestError as error:
                store.problems[state.run_id] = f"{error}; left out of the test over images"
    return found
