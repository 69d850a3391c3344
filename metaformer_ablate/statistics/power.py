"""What the seeds of a table can tell: detectable differences, seeds needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mode
from typing import Any

from metaformer_ablate.statistics import stats

Pairs = list[tuple[float, float]]  # the metric of the row and of the baseline, one pair per seed


def detectable_difference(pairs: Sequence[Pairs], unit: str = "points", digits: int = 2) -> dict[str, Any] | None:
    """What the seeds of a table can tell apart, from the spread of the paired differences of its typical row.

    `n` is the number of pairs that most rows have, `rows` counts those that can be tested, for their pairs differ.
    `half_width` is that of the paired interval: smaller observed differences cannot be told from none. `detectable` is
    the true difference that is found with probability 0.8: where one row is tested, and where Holm corrects over all of
    them (at its strictest step). None where there is no spread.
    """
    compared = [p for p in pairs if len(p) > 1]
    std = stats.typical_std([[here - there for here, there in p] for p in compared])
    if std is None:
        return None
    rows = sum(stats.spread_of_values([here - there for here, there in p]) > 0 for p in compared)
    n = mode(sorted(map(len, compared)))
    alone, holm_first = (stats.detectable(std, n, stats.LEVEL / tests) for tests in (1, rows))
    half = stats.half_width(std, n)
    return {
        "n": n,
        "rows": rows,
        "std": std,
        "half_width": half,
        "detectable": {"alone": alone, "holm": holm_first},
        "method": "paired t at 5%, noncentral t for 80% power; deviation of paired differences: the median row's",
        "text": _in_words(n, rows, std, unit, digits, half, alone, holm_first),
    }


def _in_words(
    n: int, rows: int, std: float, unit: str, digits: int, half: float, alone: float, holm_first: float
) -> str:
    largest = largest_difference(unit)
    below = "no differences can" if half > largest else f"differences below {amount(half, unit, digits)} cannot"
    why = f"the standard deviation of the differences is {std:.{digits}f} in the median row"
    if half > largest:
        why += f", so half of its 95% interval is more than {largest:.0f} {unit}: there are too few seeds"
    one, first = ("not at any size" if size > largest else f"from {size:.{digits}f} on" for size in (alone, holm_first))
    return (
        f"With {n} seeds, {below} be told apart ({why}). A true difference is found (p < 0.05) in 8 of 10 such tables "
        f"{one} if one row is tested, {first} if Holm corrects over {rows}."
    )


def largest_difference(unit: str) -> float:
    """The largest difference that there can be; more is not printed."""
    return 100.0 if unit == "points" else math.inf


def amount(value: float, unit: str, digits: int = 2) -> str:
    return f"{value:.{digits}f} {unit}".strip()


def required_seeds(difference: float, pairs: Sequence[Pairs], unit: str = "points", digits: int = 2) -> dict[str, Any]:
    """How many seeds find a true difference, in a unit, with probability 0.8; null where no spread is known."""
    known = detectable_difference(pairs, unit, digits)
    found: dict[str, Any] = {"difference": difference, "power": stats.POWER, "seeds": None}
    if known is None:
        return {
            **found,
            "text": "How many seeds are needed is not known: no row has two pairs of runs that differ.",
        }
    levels = {"alone": stats.LEVEL, "holm": stats.LEVEL / known["rows"]}
    seeds = {name: stats.seeds_needed(difference, known["std"], level) for name, level in levels.items()}
    alone, first = (f"over {stats.MOST_SEEDS_NEEDED}" if n is None else str(n) for n in seeds.values())
    amount = f"{difference:g} {unit}".strip()
    text = f"A true difference of {amount} is found (p < 0.05) in 8 of 10 tables with {alone} seeds if "
    text += f"one row is tested, with {first} if Holm corrects over {known['rows']}. This takes the standard "
    text += f"deviation of paired differences as {known['std']:.{digits}f}, the median row's over {known['n']} seeds."
    return {**found, "seeds": seeds, "method": known["method"], "text": text}
