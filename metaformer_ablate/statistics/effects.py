"""What stands beside a paired difference: its size without a unit, how often the row is better, and whether the two
may be called equal. Loads scipy.special only; statsmodels has the equivalence test (`ttost_paired`), and is large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from metaformer_ablate.statistics.stats import LEVEL, POWER

Interval = tuple[float, float]


EFFECT = "Hedges' g of the paired differences; 95% interval of the true value by the noncentral t"


BETTER = "share of the pairs in which the row is better, ties as half; 95% interval by Clopper and Pearson"


EQUIVALENCE = "two one-sided paired t tests (Schuirmann 1987), the larger p, Holm over the rows"


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, None where undefined."""

    value: float
    ci95: Interval | None
    method: str


def standardised(differences: Sequence[float], first: int | None = None) -> Estimate | None:
    """The mean of the differences over their standard deviation, Hedges' correction for few pairs applied.

    None below three pairs, and where the differences are all the same. `first` as of `paired_difference`; then there is
    no interval, for how many differences there are followed from their deviation.
    """
    n = len(differences)
    if n < 3 or (std := _spread(differences)) is None:
        return None
    from scipy.special import nctdtrinc

    df, ratio = n - 1, fmean(differences) / std
    small = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) * math.sqrt(2 / df)
    ends = [_rounded(float(nctdtrinc(df, p, ratio * math.sqrt(n))) / math.sqrt(n)) for p in (1 - LEVEL / 2, LEVEL / 2)]
    known = first is None and all(map(math.isfinite, ends)) and ends[0] < ratio < ends[1]
    return Estimate(small * ratio, (ends[0], ends[1]) if known else None, EFFECT)


def probability_better(differences: Sequence[float], sign: int = 1) -> Estimate | None:
    """How likely the row is the better one of a pair; `sign` is -1 where lower values are better. None of no pair.

    The probability that Bouthillier et al. (2021) ask for, counted over the pairs.
    """
    n = len(differences)
    if n == 0:
        return None
    from scipy.special import betaincinv

    wins = sum(1.0 if sign * d > 1e-9 else 0.5 if abs(d) <= 1e-9 else 0.0 for d in differences)
    low = float(betaincinv(wins, n - wins + 1, LEVEL / 2)) if wins else 0.0
    high = float(betaincinv(wins + 1, n - wins, 1 - LEVEL / 2)) if wins < n else 1.0
    return Estimate(wins / n, (low, high), BETTER)


@dataclass(frozen=True)
class Equivalence:
    """Whether a paired difference lies within a margin of 0: p, uncorrected, and the interval that it goes with."""

    p: float
    ci90: Interval


def equivalence(differences: Sequence[float], margin: float, first: int | None = None) -> Equivalence | None:
    """Two one-sided paired t tests, of the difference above -margin and below margin.

    p is below 0.05 where the 90% interval lies within the margin. None below two pairs, and where the differences are
    all the same, for a few equal counts do not say that the next one will be equal. `first` as of `paired_difference`.
    """
    n, known = len(differences), differences[:first]
    if len(known) < 2 or (std := _spread(known)) is None:
        return None
    from scipy.special import stdtr, stdtrit

    mean, error = fmean(differences), std / math.sqrt(n)
    df = len(known) - 1
    p = max(float(stdtr(df, side)) for side in (-(mean + margin) / error, (mean - margin) / error))
    half = float(stdtrit(df, 1 - LEVEL)) * error
    return Equivalence(p, (mean - half, mean + half))


def least_margin(std: float, n: int) -> float:
    """The margin within which n pairs show two equal rows to lie, with probability POWER, if one row is tested."""
    import numpy as np
    from scipy.special import chdtri, ndtr, stdtrit

    # Over the deviations that a sample may show, in equal steps of probability.
    shares = (np.arange(2000) + 0.5) / 2000
    seen = std * np.sqrt(chdtri(n - 1, shares) / (n - 1))
    needed = float(stdtrit(n - 1, 1 - LEVEL)) * seen / math.sqrt(n)
    low, high = 0.0, float(needed.max()) + 10 * std
    for _ in range(60):
        middle = (low + high) / 2
        room = np.maximum(middle - needed, 0) / (std / math.sqrt(n))
        low, high = (middle, high) if float(np.mean(2 * ndtr(room) - 1)) < POWER else (low, middle)
    return high


def _spread(differences: Sequence[float]) -> float | None:
    """The standard deviation; None where the values are the same but for rounding."""
    wide = max(differences) - min(differences) > 1e-9 * max(1.0, abs(fmean(differences)))
    return stdev(differences) if wide else None


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")  # what the search for it gives on every processor
