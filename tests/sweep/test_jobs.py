"""How long a plan takes, as it is told."""

from __future__ import annotations

from metaformer_ablate.records.status import RunState
from metaformer_ablate.sweep.jobs import estimate_in_words


def test_the_time_is_told_once_a_run_of_the_plan_was_measured() -> None:
    unmeasured = [RunState("0" * 12, 0, "missing", None)]
    measured = [RunState("0" * 12, 0, "ok", None, pace=1e-9)]
    for seconds in (200, 1e9):  # a guess of minutes is as little worth as one of years
        assert estimate_in_words(seconds, unmeasured) == "the time is known once one of them has been trained"
    assert estimate_in_words(200, measured) == "about 3 min"
    assert estimate_in_words(200, measured, at_once=2) == "about 3 min with 2 at once"
