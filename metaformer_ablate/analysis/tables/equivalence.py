"""Rows that are shown to lie within a margin of the baseline: "no difference" as a claim, not as a large p."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaformer_ablate.analysis.tables.types import EquivalenceTest
from metaformer_ablate.statistics.effects import EQUIVALENCE, equivalence, least_margin
from metaformer_ablate.statistics.power import Pairs
from metaformer_ablate.statistics.stats import LEVEL, corrected_over, holm
from metaformer_ablate.tasks.base import Metric


def test_equivalence(
    pairs: Mapping[str, Pairs], margin: float | None, first: int | None = None
) -> dict[str, EquivalenceTest]:
    """The test of each row that has one, p corrected over these rows. Empty without a margin.

    `first` as of `paired_difference`.
    """
    if margin is None:
        return {}
    tested = {row: equivalence([here - there for here, there in found], margin, first) for row, found in pairs.items()}
    known = {row: test for row, test in tested.items() if test is not None}
    corrected = holm([test.p for test in known.values()])
    return {
        row: EquivalenceTest(margin, p, test.ci90, EQUIVALENCE, test.p, len(known))
        for (row, test), p in zip(known.items(), corrected, strict=True)
        if p is not None
    }


def within_margin(
    tests: Mapping[str, EquivalenceTest], margin: float, resolution: Mapping[str, Any] | None, metric: Metric
) -> dict[str, Any]:
    """What the tests come to, in words and as plain values; `resolution` has the deviation of the median row."""
    shown = [row for row, test in tests.items() if test.p < LEVEL]
    least = None if resolution is None else least_margin(resolution["std"], resolution["n"])
    amount = f"{margin:g} {metric.difference_unit}".strip()
    if not tests:
        text = f"Whether a row lies within {amount} of the baseline was not tested: it needs two seeds that differ."
    else:
        text = (
            f"p (equal): two one-sided paired t tests against a difference of {amount} either way, "
            f"{corrected_over(len(tests))}. Shown to lie within {amount} of the baseline (p < {LEVEL}): "
            + (", ".join(shown) or "no row")
            + ". For the others a large p shows neither that they are equal nor that they differ."
        )
    if least is not None and resolution is not None:
        text += (
            f" With {resolution['n']} seeds, rows that are equal are shown to be so in 8 of 10 tables within "
            f"{least:.{metric.digits}f} {metric.difference_unit}".rstrip()
            + ", if one row is tested."
        )
    found = {"margin": margin, "rows": shown, "comparisons": len(tests), "least_margin": least, "method": EQUIVALENCE}
    return {**found, "text": text}
