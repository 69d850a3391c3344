"""The expected best of so many trials: by counting subsets, by simulation, and as others printed it."""

from __future__ import annotations

from itertools import combinations
from statistics import NormalDist, fmean

import numpy as np
import pytest

from metaformer_ablate.statistics.budget import expected_best


@pytest.mark.parametrize("sign", [1, -1])
def test_it_is_the_mean_of_the_best_over_all_subsets(sign: int) -> None:
    values = [97.2, 96.1, 96.1, 98.0, 12.5, 97.0]
    found = expected_best(values, sign)
    for budget in range(1, 7):
        best = max if sign == 1 else min
        assert found[budget - 1] == pytest.approx(fmean(best(subset) for subset in combinations(values, budget)))
    assert found[0] == pytest.approx(fmean(values)) and found[-1] == (98.0 if sign == 1 else 12.5)


def test_it_is_that_of_order_statistics() -> None:
    """Of 1, 2, 3: the best of two of them is 2, 3 or 3."""
    assert expected_best([1.0, 2.0, 3.0]) == pytest.approx([2.0, 8 / 3, 3.0])
    assert expected_best([5.0]) == [5.0]


@pytest.mark.slow
def test_it_is_unbiased_where_drawing_with_replacement_is_not() -> None:
    """Of 10 normal trials, against the expected maximum of k; Dodge et al. (2019) draw with replacement."""
    generator, studies, trials = np.random.default_rng(0), 20_000, 10
    unbiased, dodge = np.zeros(trials), np.zeros(trials)
    for _ in range(studies):
        values = np.sort(generator.normal(size=trials))
        unbiased += np.array(expected_best(values.tolist())) / studies
        below = np.arange(trials + 1)[:, None] / trials
        chances = np.diff(below ** np.arange(1, trials + 1), axis=0)  # of the best of k being the i-th
        dodge += (values[:, None] * chances).sum(axis=0) / studies
    true = [expected_maximum(k) for k in range(1, trials + 1)]
    print(
        f"\nexpected best of 3, 5 and 10 of 10 normal trials: true {true[2]:.3f}, {true[4]:.3f}, {true[9]:.3f}; "
        f"found {unbiased[2]:.3f}, {unbiased[4]:.3f}, {unbiased[9]:.3f}; "
        f"with replacement {dodge[2]:.3f}, {dodge[4]:.3f}, {dodge[9]:.3f}"
    )
    assert unbiased == pytest.approx(np.array(true), abs=0.02)
    assert dodge[9] < true[9] - 0.2


def expected_maximum(k: int) -> float:
    """Of k standard normal values, by a sum over the quantiles."""
    normal, steps = NormalDist(), 20_000
    return fmean(normal.inv_cdf(((i + 0.5) / steps) ** (1 / k)) for i in range(steps))
