"""How long a plan takes, as it is told."""

from __future__ import annotations

from metaformer_ablate.records.status import RunState
from metaformer_ablate.sweep.jobs import TELLING_SECONDS, estimate_in_words


def test_a_rough_rate_tells_no_days() -> None:
    unmeasured = [RunState("0" * 12, 0, "missing", None)]
    measured = [RunState("0" * 12, 0, "ok", None, pace=1e-9)]
    assert estimate_in_words(200, unmeasured, at_once=2) == "about 3 min with 2 at once"
    assert estimate_in_words(10 * TELLING_SECONDS, unmeasured).startswith("the time is known once")
    assert estimate_in_words(10 * TELLING_SECONDS, measured) == "about 2 days"
