"""The order of rows over several columns: mean ranks, and what one column alone decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from metaformer_ablate.statistics.agreement import RankedColumn
from metaformer_ablate.statistics.stats import mid_ranks

FEWEST_COLUMNS = 3  # of which one may be left out and an order of several is left


@dataclass(frozen=True)
class LeftOut:
    """What the mean ranks without one column come to: the pairs of rows in the other order, the better row of all
    columns first, and the rows that change sides with the baseline."""

    column: str
    pairs: tuple[tuple[str, str], ...]
    against_baseline: tuple[str, ...]


def ranks_of(columns: Sequence[RankedColumn], sign: int = 1) -> list[dict[str, float]]:
    """The ranks in each column of the rows that all columns have: 1 for the best, ties share the mean of theirs.

    `sign` is 1 where higher values are better, -1 where lower ones are.
    """
    first, *others = columns
    common = [row for row in first.values if all(row in column.values for column in others)]
    return [
        dict(zip(common, mid_ranks([-sign * column.values[row] for row in common]), strict=True)) for column in columns
    ]


def mean_ranks(ranks: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over the columns of each row's rank."""
    return {row: fmean(column[row] for column in ranks) for row in ranks[0]}


def left_out_one_by_one(columns: Sequence[RankedColumn], baseline: str, sign: int = 1) -> list[LeftOut]:
    """For each column, what changes in the order by mean rank without it. Empty below FEWEST_COLUMNS,
    and where fewer than two rows are in all of them.

    A pair flips where its order is the opposite one; a tie on either side is no flip. All ranks are among the rows that
    all columns have.
    """
    ranks = ranks_of(columns, sign)
    if len(columns) < FEWEST_COLUMNS or len(ranks[0]) < 2:
        return []
    everything = mean_ranks(ranks)
    found = []
    for i, column in enumerate(columns):
        rest = mean_ranks(ranks[:i] + ranks[i + 1 :])
        flipped = []
        for one, other in combinations(everything, 2):
            before, after = (_order(side[one], side[other]) for side in (everything, rest))
            if before * after < 0:
                flipped.append((one, other) if before < 0 else (other, one))
        sides = tuple(next(row for row in pair if row != baseline) for pair in flipped if baseline in pair)
        found.append(LeftOut(column.name, tuple(flipped), sides))
    return found


def _order(one: float, other: float) -> int:
    """-1 where one stands before the other; sums of ranks that are equal may differ in a last digit."""
    return 0 if abs(one - other) < 1e-9 else -1 if one < other else 1
