"""scipy, and cases by hand, as the oracle for every statistic; what is undefined stays None."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import scipy.stats

from metaformer_ablate.statistics.images import SMALLEST_P, compare_on_images, compare_scores_on_images, mcnemar
from metaformer_ablate.statistics.stats import (
    PAIRED_T,
    Correlation,
    bootstrap_interval,
    detectable,
    half_width,
    holm,
    kendall,
    mid_ranks,
    paired_difference,
    power_of,
    seeds_needed,
    spearman,
    summarise,
    typical_std,
)

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


# ---------------------------------------------------------------------------------------------------------------------
# Bootstrap


@pytest.mark.parametrize("n", [10, 13, 40])
@pytest.mark.parametrize("skewed", [False, True])
def test_bootstrap_is_that_of_scipy(n: int, skewed: bool) -> None:
    generator = np.random.default_rng(n)
    values = 90 + (generator.exponential(size=n) if skewed else generator.normal(size=n))
    found = bootstrap_interval(values.tolist())
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=200_000, method="BCa", batch=20_000, rng=generator)
    assert found is not None
    # Both are simulations: their ends scatter by a fiftieth of the interval.
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * (found[1] - found[0]))
    assert bootstrap_interval(values.tolist()) == found, "the same records give the same bytes"


def test_bootstrap_is_not_offered_where_it_fails() -> None:
    values = [90.0 + math.sin(i) for i in range(101)]
    assert [bootstrap_interval(values[:n]) is None for n in (3, 9, 10, 100, 101)] == [True, True, False, False, True]
    assert bootstrap_interval([97.0] * 12) is None


# ---------------------------------------------------------------------------------------------------------------------
# Images


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 9), (9, 3), (251, 451), (25, 25), (0, 12), (140, 90)])
def test_mcnemar_is_the_binomial_test_of_scipy(gained: int, lost: int) -> None:
    if not gained + lost:
        assert mcnemar(gained, lost) is None, "without a discordant image nothing is tested"
    else:
        assert mcnemar(gained, lost) == pytest.approx(scipy.stats.binomtest(gained, gained + lost).pvalue, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    # 1 of 6 to one side: twice (1 + 6) / 64.
    assert mcnemar(1, 5) == pytest.approx(14 / 64)


@pytest.mark.parametrize(("size", "bias"), [(200, 0.45), (300, 0.38), (600, 0.27)])
def test_small_p_of_the_sign_flip_test_are_right_down_to_its_floor(size: int, bias: float) -> None:
    """Against whole numbers: the coefficients of the product of 1 + x^(2 |d|), packed into one integer."""
    generator = np.random.default_rng(size)
    d = generator.integers(1, 4, size) * np.where(generator.random(size) < 0.5 + bias / 2, 1, -1)
    bits, product = size + 2, 1
    for value in np.abs(d).tolist():
        product *= 1 + (1 << (2 * bits * value))
    tail, left = 0, product >> (bits * int(np.abs(d).sum() + abs(d.sum())))
    while left:
        tail, left = tail + (left & ((1 << bits) - 1)), left >> bits
    p = 2 * tail / 2**size
    assert 1e-13 < p < 1e-7
    row, baseline = ({seed: sign * d > seed for seed in range(3)} for sign in (1, -1))
    assert compare_on_images(row, baseline).p == pytest.approx(p, rel=1e-5, abs=1e-14)


def answers(*lines: str) -> dict[int, np.ndarray]:
    """`110` is a model that has the first two images right."""
    return {seed: np.array([c == "1" for c in line]) for seed, line in enumerate(lines)}


def test_counts_of_images() -> None:
    test = compare_on_images(answers("11110000", "11111000"), answers("10000001", "11000111"))
    assert test.images == 8
    assert [(s["seed"], s["gained"], s["lost"]) for s in test.seeds] == [(0, 3, 1), (1, 3, 3)]
    assert [s["p"] for s in test.seeds] == [mcnemar(3, 1), mcnemar(3, 3)]
    # d over the images: 0, 1, 2, 2, 1, -1, -1, -2. Of 128 signs of the seven others, those as far from 0 as 2.
    signs = itertools.product((-1, 1), repeat=7)
    far = sum(abs(np.dot(s, (1, 2, 2, 1, 1, 1, 2))) >= 2 for s in signs)
    assert test.p == pytest.approx(far / 128, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_one_seed_is_mcnemar(seed: int) -> None:
    generator = np.random.default_rng(seed)
    row, baseline = ({7: generator.random(300) < rate} for rate in (0.8, 0.75))
    test = compare_on_images(row, baseline)
    (only,) = test.seeds
    assert test.p == only["p"] == mcnemar(only["gained"], only["lost"])
    # The same model twice is no more evidence than once.
    twice = compare_on_images({0: row[7], 1: row[7]}, {0: baseline[7], 1: baseline[7]})
    assert twice.p == pytest.approx(test.p)


@pytest.mark.parametrize("seed", range(8))
def test_sign_flips_are_counted_exactly(seed: int) -> None:
    generator = np.random.default_rng(seed)
    row, baseline = ({s: generator.random(13) < 0.5 for s in range(3)} for _ in range(2))
    d = sum(row[s].astype(int) - baseline[s] for s in range(3))
    signs = np.array(list(itertools.product((-1, 1), repeat=13)))
    expected = np.mean(np.abs(signs @ d) >= abs(d.sum()))
    assert compare_on_images(row, baseline).p == pytest.approx(expected, rel=1e-5)


def test_sign_flips_of_many_images_are_normal() -> None:
    generator = np.random.default_rng(0)
    row, baseline = ({s: generator.random(10_000) < rate for s in range(5)} for rate in (0.773, 0.77))
    d = sum(row[s].astype(int) - baseline[s] for s in range(5))
    z = (abs(d.sum()) - 1) / np.sqrt(np.sum(d**2))  # sums are two apart: half of that is the continuity correction
    assert compare_on_images(row, baseline).p == pytest.approx(2 * scipy.stats.norm.sf(z), rel=0.01)
    far = {s: np.ones(10_000, dtype=bool) for s in range(5)}
    assert compare_on_images(far, baseline).p == SMALLEST_P
    assert compare_on_images(row, row).p == 1


# ---------------------------------------------------------------------------------------------------------------------
# Resolution and power


@pytest.mark.parametrize(
    ("difference", "std", "n"), [(2, 1, 3), (0.4, 0.5, 10), (-0.3, 1, 50), (0.5, 0.2, 2), (9, 1, 3)]
)
@pytest.mark.parametrize("level", [0.05, 0.05 / 17])
def test_power_is_that_of_scipy(difference: float, std: float, n: int, level: float) -> None:
    shift, critical = abs(difference) / std * math.sqrt(n), scipy.stats.t.ppf(1 - level / 2, n - 1)
    upper = scipy.stats.nct.sf(critical, n - 1, shift)
    lower = scipy.stats.nct.cdf(-critical, n - 1, shift)
    assert power_of(difference, std, n, level) == pytest.approx(upper + (0 if np.isnan(lower) else lower), rel=1e-6)


def test_power_of_a_simulation() -> None:
    generator = np.random.default_rng(0)
    p = scipy.stats.ttest_1samp(generator.normal(0.7, 0.5, size=(20_000, 5)), 0, axis=1).pvalue
    assert power_of(0.7, 0.5, 5) == pytest.approx(np.mean(p < 0.05), abs=0.01)
    assert power_of(0, 0.5, 5) == pytest.approx(0.05)


@pytest.mark.parametrize("n", [2, 3, 5, 40])
@pytest.mark.parametrize("level", [0.05, 0.05 / 17])
def test_what_is_detectable_is_found_in_8_of_10(n: int, level: float) -> None:
    found = detectable(0.36, n, level)
    assert power_of(found, 0.36, n, level) == pytest.approx(0.8, abs=1e-9)
    assert found > half_width(0.36, n, level) * 0.8


def test_seeds_needed() -> None:
    # Cohen's d of 1.389: the tables of paired tests say 7 pairs at 80% and 5%.
    assert seeds_needed(0.5, 0.36) == 7
    for difference, std, level in ((0.5, 0.36, 0.05 / 17), (0.1, 0.36, 0.05), (30, 0.36, 0.05)):
        n = seeds_needed(difference, std, level)
        assert n is not None and power_of(difference, std, n, level) >= 0.8
        assert n == 2 or power_of(difference, std, n - 1, level) < 0.8
    assert seeds_needed(0.001, 0.36) is None


def test_half_width_is_that_of_the_interval() -> None:
    low, high = summarise([1.0, 2.0, 3.0]).ci95
    assert half_width(1.0, 3) == pytest.approx((high - low) / 2)


def test_the_typical_deviation_is_the_median_rows() -> None:
    # At 3 pairs the median of chi-square is 2 ln 2: a deviation of 1 stands for 1 / sqrt(ln 2).
    steady, usual, wild = [0.0, 0.1, 0.2], [1.0, 2.0, 3.0], [0.0, 50.0, 90.0]
    assert typical_std([steady, usual, wild]) == pytest.approx(1 / math.sqrt(math.log(2)))
    assert typical_std([usual, [7.0]]) == typical_std([usual]), "one pair has no deviation"
    assert typical_std([]) is typical_std([[1.0]]) is typical_std([[1.0, 1.0]]) is None
    generator = np.random.default_rng(0)
    assert typical_std(generator.normal(0, 2, size=(2_001, 3)).tolist()) == pytest.approx(2, rel=0.05)


# ---------------------------------------------------------------------------------------------------------------------
# Rank correlation


@pytest.mark.parametrize("seed", range(10))
def test_rank_correlations_are_those_of_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    a, b = (generator.integers(0, 9, 12).tolist() for _ in range(2))  # with ties
    tau, rho = kendall(a, b), spearman(a, b)
    assert tau.value == pytest.approx(scipy.stats.kendalltau(a, b).statistic)
    assert rho.value == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
    for found, error in ((tau, math.sqrt(0.437 / 8)), (rho, math.sqrt((1 + rho.value**2 / 2) / 9))):
        z = scipy.stats.norm.ppf([0.025, 0.975], loc=math.atanh(found.value), scale=error)
        assert found.ci95 == pytest.approx(tuple(np.tanh(z)))
    assert mid_ranks(a) == scipy.stats.rankdata(a).tolist()


def test_rank_correlations_without_an_interval() -> None:
    assert kendall([1, 2, 3, 4, 5], [10, 20, 30, 40, 50]) == spearman([1, 2, 3], [5, 6, 7]) == Correlation(1.0, None)
    assert kendall([1, 2, 3], [2, 2, 2]) == spearman([1, 2, 3], [2, 2, 2]) == Correlation(None, None)
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]).ci95 is None, "Fieller's variance needs five"
    assert spearman([1, 2, 3], [1, 3, 2]).ci95 is None, "Bonett and Wright's needs four"
    half = math.tanh(scipy.stats.norm.ppf(0.975))
    assert spearman([1, 2, 3, 4], [2, 4, 1, 3]) == Correlation(0.0, pytest.approx((-half, half)))


def test_scores_of_images_are_compared_by_the_signs_of_their_differences() -> None:
    draw = np.random.default_rng(3)
    row, baseline = ({seed: draw.uniform(0, 100, 10).round(1) for seed in (0, 4)} for _ in range(2))
    test = compare_scores_on_images(row, baseline)
    signs = np.array(list(itertools.product((-1, 1), repeat=10)))

    def by_hand(gap: np.ndarray) -> float:
        sums = np.abs((signs * np.rint(10 * gap)).sum(axis=1))
        return float((sums >= abs(np.rint(10 * gap).sum()) - 1e-9).mean())

    assert test.images == 10
    assert test.p == pytest.approx(by_hand(row[0] - baseline[0] + row[4] - baseline[4]), rel=1e-5)
    for counted in test.seeds:
        gap = row[counted["seed"]] - baseline[counted["seed"]]
        assert counted["p"] == pytest.approx(by_hand(gap), rel=1e-5)
        assert (counted["gained"], counted["lost"]) == ((gap > 0).sum(), (gap < 0).sum())
    same = compare_scores_on_images(row, row)
    assert same.p == 1.0 and same.seeds[0] == {"seed": 0, "gained": 0, "lost": 0, "p": None}
