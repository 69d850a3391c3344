"""Mean ranks of rows over several columns, and what changes without one of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from metaformer_ablate.statistics.agreement import RankedColumn
from metaformer_ablate.statistics.consensus import left_out_one_by_one, mean_ranks, ranks_of
from metaformer_ablate.statistics.stats import kendall, spearman


def columns(*values: list[float]) -> list[RankedColumn]:
    return [
        RankedColumn(name, dict(zip("abcde", row, strict=False))) for name, row in zip("xyzw", values, strict=False)
    ]


def test_ranks_are_scipys_of_the_rows_that_all_have() -> None:
    one, other = columns([3.0, 5.0, 5.0, 1.0], [2.0, 4.0, 9.0, 1.0, 7.0])
    ranks = ranks_of([one, other])
    assert ranks[0] == {"a": 3.0, "b": 1.5, "c": 1.5, "d": 4.0}, "e is not in both"
    for found, column in zip(ranks, (one, other), strict=True):
        theirs = scipy.stats.rankdata([-column.values[row] for row in "abcd"])
        assert list(found.values()) == theirs.tolist()
    assert mean_ranks(ranks) == {"a": 3.0, "b": 1.75, "c": 1.25, "d": 4.0}
    assert ranks_of([one, other], sign=-1)[1] == {"a": 2.0, "b": 3.0, "c": 4.0, "d": 1.0}, "lower is better"


def test_a_pair_flips_where_one_column_alone_orders_it() -> None:
    # Ranks a 1 2 3, b 2 3 1, c 3 1 2: a tie of all, which nothing flips.
    found = left_out_one_by_one(columns([3.0, 2.0, 1.0], [1.1, 1.0, 1.2], [1.0, 3.0, 2.0]), baseline="b")
    assert [(each.column, each.pairs) for each in found] == [("x", ()), ("y", ()), ("z", ())]
    found = left_out_one_by_one(columns([4.0, 2, 3, 1], [3.0, 4, 1, 2], [4.0, 2, 3, 1]), baseline="b")
    # Ranks a 1 2 1, b 3 1 3, c 2 4 2: b 7/3 before c 8/3, and without y c 2 before b 3; without x or z b 2, c 3.
    assert [each.pairs for each in found] == [(), (("b", "c"),), ()]
    assert [each.against_baseline for each in found] == [(), ("c",), ()]


@pytest.mark.parametrize("sign", [1, -1])
def test_flips_are_those_of_a_count_by_hand(sign: int) -> None:
    generator = np.random.default_rng(0)
    flips = 0
    for _ in range(50):
        values = generator.integers(0, 4, size=(4, 5)).astype(float).tolist()
        ranks = scipy.stats.rankdata(-sign * np.array(values), axis=1)
        found = left_out_one_by_one(columns(*values), "a", sign)
        for i, each in enumerate(found):
            rest = np.delete(ranks, i, axis=0).mean(0)
            pairs = {
                frozenset("abcde"[k] for k in pair)
                for pair in combinations(range(5), 2)
                if np.prod([np.sign(np.round(side[pair[0]] - side[pair[1]], 9)) for side in (ranks.mean(0), rest)]) < 0
            }
            assert {frozenset(pair) for pair in each.pairs} == pairs
            flips += len(pairs)
    assert flips > 50


def test_two_columns_leave_no_order_of_several() -> None:
    assert left_out_one_by_one(columns([1.0, 2.0], [2.0, 1.0]), "a") == []
    assert left_out_one_by_one(columns([1.0], [2.0], [1.0]), "a") == []


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("n", [6, 10, 18])
def test_intervals_of_rank_correlations_cover(n: int, correlation: float) -> None:
    """Over tables of n rows drawn from many, normal in both columns, whose true tau and rho are known."""
    generator, tables = np.random.default_rng([n, int(10 * correlation)]), 4_000
    tau, rho = 2 / np.pi * np.arcsin(correlation), 6 / np.pi * np.arcsin(correlation / 2)
    covered = {"kendall": 0, "spearman": 0}
    for _ in range(tables):
        one, other = generator.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], n).T.tolist()
        for name, method, true in (("kendall", kendall, tau), ("spearman", spearman, rho)):
            ci95 = method(one, other).ci95
            covered[name] += ci95 is None or ci95[0] <= true <= ci95[1]
    shares = {name: count / tables for name, count in covered.items()}
    print(f"\n{n} rows, correlation {correlation}: " + ", ".join(f"{k} covers {v:.1%}" for k, v in shares.items()))
    assert all(share > 0.91 for share in shares.values())
