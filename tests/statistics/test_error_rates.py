"""How often claims of a table are right, by simulation. Slow; docs/error_rates.md quotes what `-s` prints."""

from __future__ import annotations

import numpy as np
import pytest

from metaformer_ablate.statistics.effects import equivalence, probability_better, standardised
from metaformer_ablate.statistics.stats import holm, paired_difference

pytestmark = pytest.mark.slow

TABLES, ROWS = 3_000, 17
MARGIN = 0.5  # points
SHARED, OWN = 0.2, 0.3  # deviations: what all rows of a seed share, and what a run has of its own


def differences(n: int, shift: float, noise: str, generator: np.random.Generator) -> list[list[float]]:
    """Of 17 rows from a baseline that they all differ from by a shift: accuracies of 10,000 images, in percent."""
    size = (1 + ROWS, n)
    own = generator.normal(size=size) if noise == "normal" else 1 - generator.exponential(size=size)
    top1 = 77 + SHARED * generator.normal(size=n) + OWN * own
    top1[1:] += shift
    top1 = np.round(top1, 2)
    return (top1[1:] - top1[0]).tolist()


@pytest.mark.parametrize("noise", ["normal", pytest.param("skewed", marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_rows_that_differ_by_the_margin_are_hardly_ever_called_equal(n: int, noise: str) -> None:
    generator = np.random.default_rng([n, len(noise)])
    false = any_false = shown = 0
    for i in range(TABLES):
        rows = differences(n, MARGIN * (-1) ** i, noise, generator)
        p = [test.p for row in rows if (test := equivalence(row, MARGIN)) is not None]
        false += sum(each < 0.05 for each in p)
        any_false += any(each is not None and each < 0.05 for each in holm(p))
    for _ in range(TABLES // 10):
        rows = differences(n, 0, noise, generator)
        p = [test.p for row in rows if (test := equivalence(row, MARGIN)) is not None]
        shown += sum(each is not None and each < 0.05 for each in holm(p))
    print(
        f"\n{noise} noise, {n} seeds: rows that differ by the margin called equal {false / TABLES / ROWS:.1%} without "
        f"Holm, tables with any {any_false / TABLES:.1%} after it; equal rows shown {shown / (TABLES // 10) / ROWS:.0%}"
    )
    assert any_false / TABLES < 0.05 + 3 * (0.05 * 0.95 / TABLES) ** 0.5
    assert false / TABLES / ROWS < 0.06


@pytest.mark.parametrize("noise", ["normal", pytest.param("skewed", marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_changes_that_add_up_are_hardly_ever_called_an_interaction(n: int, noise: str) -> None:
    """Three interactions per table, of rows that share a baseline."""
    generator = np.random.default_rng([n, len(noise)])
    false = any_false = 0
    for _ in range(TABLES):
        rows = differences(n, 0, noise, generator)
        tests = [paired_difference(rows[3 * i], np.add(rows[3 * i + 1], rows[3 * i + 2]).tolist()) for i in range(3)]
        false += sum(test.p is not None and test.p < 0.05 for test in tests)
        any_false += any(p is not None and p < 0.05 for p in holm([test.p for test in tests]))
    print(
        f"\n{noise} noise, {n} seeds: additive changes called an interaction {false / TABLES / 3:.1%} without Holm, "
        f"tables with any {any_false / TABLES:.1%} after it"
    )
    assert any_false / TABLES < 0.05 + 3 * (0.05 * 0.95 / TABLES) ** 0.5


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_of_effect_and_probability_cover(n: int) -> None:
    generator = np.random.default_rng(n)
    std, trials = OWN * 2**0.5, 4_000
    true, half = 0.8, 0.5  # the effect of rows that differ by 0.8 deviations; the chance of equal ones
    effects = chances = biased = 0.0
    for _ in range(trials):
        effect = standardised(generator.normal(true * std, std, n).tolist())
        assert effect is not None and effect.ci95 is not None
        effects += effect.ci95[0] <= true <= effect.ci95[1]
        biased += effect.value / trials
        chance = probability_better(generator.normal(0, std, n).tolist())
        assert chance is not None and chance.ci95 is not None
        chances += chance.ci95[0] <= half <= chance.ci95[1]
    print(
        f"\n{n} seeds: interval of the effect covers {effects / trials:.1%}, its mean is {biased:.2f} of {true}; "
        f"interval of the probability covers {chances / trials:.1%}"
    )
    assert effects / trials == pytest.approx(0.95, abs=0.012)
    assert biased == pytest.approx(true, abs=0.05)
    assert chances / trials >= 0.95 - 0.01, "by construction at least"
