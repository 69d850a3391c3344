"""scipy as the oracle for means, paired differences and Holm's correction; what is undefined stays None."""

from __future__ import annotations

import math
import random

import pytest
import scipy.stats

from metaformer_ablate.analysis.stats import PAIRED_T, holm, paired_difference, summarise

CASES = [
    [97.1, 96.4],
    [97.2, 95.9, 96.6],
    [77.2, 77.4, 76.9, 77.1, 77.0],
    [0.1, 5.7, 99.9, 50.0, 12.3, 8.8, 61.0],
    [97.493, 97.493, 97.214],  # two of three are equal: there is a spread
    [1e-3, 2e-3, 4e-3],
]


@pytest.mark.parametrize("values", CASES)
def test_summary_is_that_of_scipy(values: list[float]) -> None:
    summary = summarise(values)
    n = len(values)
    assert summary.n == n
    assert summary.mean == pytest.approx(scipy.stats.tmean(values), rel=1e-12)
    assert summary.std == pytest.approx(scipy.stats.tstd(values), rel=1e-9)
    low, high = scipy.stats.t.interval(0.95, n - 1, loc=scipy.stats.tmean(values), scale=scipy.stats.sem(values))
    assert summary.ci95 == pytest.approx((low, high), rel=1e-9)


def test_interval_by_hand() -> None:
    # 1, 2, 3: mean 2, deviation 1, t of 2 degrees 4.302653, over the root of 3.
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary.mean, summary.std) == (2.0, 1.0)
    assert summary.ci95 == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-6)


def test_below_two_values_there_is_no_spread() -> None:
    nothing, one = summarise([]), summarise([97.5])
    assert (nothing.n, nothing.mean, nothing.std, nothing.ci95) == (0, None, None, None)
    assert (one.n, one.mean, one.std, one.ci95) == (1, 97.5, None, None)


@pytest.mark.parametrize("value", [97.4930362116991, 0.1, 1 / 3, 100.0, 0.0])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_equal_values_have_no_interval(value: float, n: int) -> None:
    summary = summarise([value] * n)
    assert summary.std == 0
    assert summary.ci95 is None
    assert summary.mean == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("row", CASES)
def test_paired_difference_is_that_of_scipy(row: list[float]) -> None:
    generator = random.Random(len(row))
    baseline = [value + generator.uniform(-1, 2) for value in row]
    found = paired_difference(row, baseline)
    theirs = scipy.stats.ttest_rel(row, baseline)
    assert found.n == len(row)
    assert found.mean == pytest.approx(sum(row) / len(row) - sum(baseline) / len(row), abs=1e-9)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-8)
    assert found.ci95 == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-8)
    assert found.method == PAIRED_T
    differences = [a - b for a, b in zip(row, baseline, strict=True)]
    assert found.p == pytest.approx(scipy.stats.ttest_1samp(differences, 0).pvalue, rel=1e-8)
    back = paired_difference(baseline, row)
    assert (back.mean, back.p) == (pytest.approx(-found.mean), pytest.approx(found.p))


def test_pairing_takes_out_what_seeds_share() -> None:
    # The seeds differ by whole points, the rows by a steady tenth: paired that shows, unpaired it would not.
    baseline = [70.0, 75.0, 80.0, 85.0]
    row = [70.11, 75.09, 80.10, 85.10]
    assert paired_difference(row, baseline).p < 0.001 < 0.5 < scipy.stats.ttest_ind(row, baseline).pvalue
    with pytest.raises(ValueError):
        paired_difference(row, baseline[:3])


def test_a_tiny_p_keeps_its_size() -> None:
    baseline = [float(value) for value in range(12)]
    row = [value + 50 + 0.001 * (-1) ** i for i, value in enumerate(baseline)]
    found = paired_difference(row, baseline)
    assert 0 < found.p < 1e-40
    assert found.p == pytest.approx(scipy.stats.ttest_rel(row, baseline).pvalue, rel=1e-6)


def test_one_pair_has_a_difference_and_nothing_else() -> None:
    found = paired_difference([97.0], [96.5])
    assert (found.n, found.mean, found.ci95, found.p) == (1, 0.5, None, None)
    assert "no spread" in found.method
    with pytest.raises(ValueError, match="no pair"):
        paired_difference([], [])


def test_differences_that_are_all_the_same_have_no_test() -> None:
    moved = paired_difference([97.1, 96.1, 95.1], [96.8, 95.8, 94.8])
    assert moved.mean == pytest.approx(0.3)
    assert moved.p is None and moved.ci95 is None
    assert "undefined" in moved.method
    still = paired_difference([97.0, 96.0], [97.0, 96.0])
    assert (still.mean, still.ci95) == (0.0, None)
    assert still.p in (None, 1.0), "nothing speaks for a difference"


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5, the third raised to the second.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.04]) == [0.04]
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_passes_over_what_has_no_p() -> None:
    # The baseline has none, nor has a row with one seed: they are no tests, and do not count as such.
    assert holm([None, 0.02, None, 0.03]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]
    assert holm([None, None]) == [None, None]


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_the_closed_test_procedure(seed: int) -> None:
    """Holm's rejections at any level are those of the definition: step down while p <= level / tests left."""
    generator = random.Random(seed)
    p_values = [generator.random() ** 3 for _ in range(generator.randint(1, 8))]
    if seed % 3 == 0:
        p_values.append(p_values[0])  # a tie
    adjusted = holm(p_values)
    for level in (0.001, 0.01, 0.05, 0.2, 0.7):
        rejected = set()
        order = sorted(range(len(p_values)), key=lambda i: p_values[i])
        for rank, i in enumerate(order):
            if p_values[i] > level / (len(p_values) - rank):
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
