"""scipy, and cases by hand, as the oracle for what stands beside a difference."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
import scipy.stats

from metaformer_ablate.statistics.effects import equivalence, least_margin, probability_better, standardised

CASES = [[0.5, 0.25, 0.75], [-0.7, 0.2, -1.4, -0.9, -0.6], [-27.1, -28.0, -26.2, -29.4, -25.9], [0.1] * 9 + [0.2]]


@pytest.mark.parametrize("differences", CASES)
def test_the_effect_is_hedges_g_and_its_interval_that_of_the_noncentral_t(differences: list[float]) -> None:
    n, ratio = len(differences), fmean(differences) / stdev(differences)
    found = standardised(differences)
    assert found is not None and found.ci95 is not None
    exact = math.gamma((n - 1) / 2) / (math.sqrt((n - 1) / 2) * math.gamma((n - 2) / 2))
    assert found.value == pytest.approx(ratio * exact)
    for end, p in zip(found.ci95, (0.975, 0.025), strict=True):
        assert scipy.stats.nct.cdf(ratio * math.sqrt(n), n - 1, end * math.sqrt(n)) == pytest.approx(p, abs=1e-4)
    back = standardised([-d for d in differences])
    assert back is not None and back.ci95 is not None
    assert (back.value, *back.ci95) == pytest.approx((-found.value, -found.ci95[1], -found.ci95[0]), rel=1e-4)


def test_a_number_of_pairs_that_the_spread_decided_leaves_the_effect_without_an_interval() -> None:
    found, whole = standardised(CASES[1], first=3), standardised(CASES[1])
    assert found is not None and whole is not None
    assert found.value == whole.value and found.ci95 is None and whole.ci95 is not None


def test_there_is_no_effect_without_a_spread() -> None:
    assert standardised([]) is standardised([1.0, 2.0]) is standardised([0.3, 0.3, 0.3 + 1e-15]) is None


@pytest.mark.parametrize("wins, n", [(0, 5), (3, 5), (5, 5), (1, 1), (7, 10)])
def test_the_probability_is_the_binomial_one_of_scipy(wins: int, n: int) -> None:
    differences = [1.0] * wins + [-2.0] * (n - wins)
    found = probability_better(differences)
    assert found is not None and found.value == wins / n
    theirs = scipy.stats.binomtest(wins, n).proportion_ci(0.95, "exact")
    assert found.ci95 == pytest.approx((theirs.low, theirs.high))
    lower_is_better = probability_better(differences, sign=-1)
    assert lower_is_better is not None and lower_is_better.value == pytest.approx(1 - wins / n)


def test_a_tie_is_half_a_win() -> None:
    found = probability_better([0.0, 1e-15, 1.0, -1.0])
    assert found is not None and found.value == 0.5 and found.ci95 is not None
    assert found.ci95[0] == pytest.approx(1 - found.ci95[1])
    assert probability_better([]) is None


@pytest.mark.parametrize("differences", CASES)
@pytest.mark.parametrize("margin", [0.1, 1.0, 40.0])
def test_equivalence_is_two_one_sided_tests_of_scipy(differences: list[float], margin: float) -> None:
    found = equivalence(differences, margin)
    above = scipy.stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = scipy.stats.ttest_1samp(differences, margin, alternative="less").pvalue
    assert found is not None and found.p == pytest.approx(max(above, below))
    low, high = scipy.stats.t.interval(0.9, len(differences) - 1, fmean(differences), scipy.stats.sem(differences))
    assert found.ci90 == pytest.approx((low, high))
    assert (found.p < 0.05) == (-margin < low and high < margin)


def test_equivalence_needs_two_pairs_that_differ() -> None:
    assert equivalence([], 1) is equivalence([0.1], 1) is equivalence([0.1, 0.1], 1) is None


@pytest.mark.parametrize("n", [3, 5, 20])
def test_equal_rows_are_shown_so_within_the_least_margin_in_8_of_10(n: int) -> None:
    margin = least_margin(0.7, n)
    assert margin == pytest.approx(0.7 * least_margin(1.0, n))
    generator = np.random.default_rng(n)
    found = [equivalence(generator.normal(0, 0.7, n).tolist(), margin) for _ in range(4000)]
    assert np.mean([test is not None and test.p < 0.05 for test in found]) == pytest.approx(0.8, abs=0.02)
