"""Statistics of few runs paired by seed. Loads numpy and scipy.special only: no torch, no pandas, no scipy.stats.

Why these are ours, where a library has a method: loading scipy.stats takes about as long as all of `ablate table`
(1.1 of 2.3 CPU seconds), and its Kendall's tau differs from the committed study's in the last digit; Holm's correction
and the power of a paired t test are in statsmodels, a large dependency for two short functions; the sign-flip test over
images is in neither. The tests compare every one of them with scipy.stats or with published numbers.

What each method is and when it may be trusted: docs/statistics.md; how often it was right: docs/error_rates.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


PAIRED_T = "paired t over common seeds, Holm over the rows"


TWO_STAGE = "Stein's two-stage t over common seeds, by the deviation of the first {first}, Holm over the rows"


UNDEFINED_T = "paired t undefined: the differences are all the same"


LEVEL = 0.05  # two-sided, of every interval and of the tests that resolution and power speak of


POWER = 0.8


BOOTSTRAP_SEEDS = (10, 100)  # with fewer it covers too little (0.73 at 3 seeds, 0.84 at 5); beyond, t says the same


RESAMPLES = 9_999


BOOTSTRAP = f"BCa bootstrap over seeds, {RESAMPLES} resamples, fixed seed"


MOST_SEEDS_NEEDED = 100_000


FISHER_Z = "Fisher z: Bonett and Wright's variance for Spearman, Fieller's for Kendall; rows as a sample of rows"


@dataclass(frozen=True)
class Summary:
    """Mean of n values, their standard deviation (n - 1) and the t interval of the mean; None where undefined."""

    n: int
    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its t interval and two-sided p, uncorrected; None where undefined."""

    n: int
    mean: float
    ci95: tuple[float, float] | None
    p: float | None
    method: str


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and 95% t interval.

    Below two values there is no spread. Values that are all the same have a spread of 0 and no interval: accuracies
    are counts, and a few equal counts do not say that the next one will be equal.
    """
    n = len(values)
    if n == 0:
        return Summary(0, None, None, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, None, None)
    std = _std(values, mean)
    return Summary(n, mean, std, _interval(mean, std, n) if std > 0 else None)


def paired_difference(row: Sequence[float], baseline: Sequence[float], first: int | None = None) -> Difference:
    """row minus baseline, both in the order of the seeds they share. Raises ValueError where there is no pair.

    Where how many seeds there are followed from the spread of the `first` ones, these alone give the deviation and the
    degrees of freedom (`two_stage.py`).
    """
    differences = [a - b for a, b in zip(row, baseline, strict=True)]
    n = len(differences)
    if n == 0:
        raise ValueError("no pair to compare")
    mean = math.fsum(differences) / n
    known = differences[:first]
    if len(known) == 1:
        return Difference(n, mean, None, None, "one pair: no spread")
    std = spread_of_values(known)
    if std == 0:
        return Difference(n, mean, None, None, UNDEFINED_T)
    from scipy.special import stdtr, stdtrit

    df, error = len(known) - 1, std / math.sqrt(n)
    p = 2 * float(stdtr(df, -abs(mean) / error))
    half = float(stdtrit(df, 1 - LEVEL / 2)) * error
    method = PAIRED_T if first is None else TWO_STAGE.format(first=first)
    return Difference(n, mean, (mean - half, mean + half), p, method)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) over those that are not None: adjusted p, at most 1."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = largest
    return adjusted


def corrected_over(comparisons: int) -> str:
    """How the p of so many comparisons are corrected, as tables say it."""
    if comparisons == 1:
        return "not corrected, for it is the only comparison of this table"
    return f"corrected by Holm over the {comparisons} comparisons of this table"


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95% BCa interval of the mean (Efron 1987), the same for the same values.

    None outside BOOTSTRAP_SEEDS, and where the values are all the same.
    """
    n, (fewest, most) = len(values), BOOTSTRAP_SEEDS
    if not fewest <= n <= most or _std(values, math.fsum(values) / n) == 0:
        return None
    import numpy as np
    from scipy.special import ndtr, ndtri

    x = np.asarray(values, dtype=np.float64)
    mean = x.mean()
    means = (_resampled(n) * x).sum(axis=1) / n
    below = (np.sum(means < mean) + np.sum(means <= mean)) / (2 * RESAMPLES)
    bias = ndtri(below)
    away = x - mean  # the jackknife's values of a mean are these, but for a factor
    acceleration = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    z = bias + ndtri([LEVEL / 2, 1 - LEVEL / 2])
    low, high = np.quantile(means, ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


@lru_cache(maxsize=2)  # the rows of a table mostly have the same number of seeds
def _resampled(n: int) -> np.ndarray:
    """How often each of n values is drawn, [RESAMPLES, n]."""
    import numpy as np

    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def typical_std(differences: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation of the paired differences of a typical row: the median over the rows, so that one unstable
    row does not speak for all. None where no row has two pairs, or the median row has no spread.

    The median of a chi-square lies below its mean, by 17% of the deviation at 3 seeds: each row is divided by that.
    """
    from scipy.special import chdtri

    found = [
        _std(values, math.fsum(values) / n) / math.sqrt(float(chdtri(n - 1, 0.5)) / (n - 1))
        for values in differences
        if (n := len(values)) > 1
    ]
    return (median(found) or None) if found else None


def half_width(std: float, n: int, level: float = LEVEL) -> float:
    """Half of the paired t interval of n pairs: smaller observed differences cannot be told from none."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - level / 2)) * std / math.sqrt(n)


def power_of(difference: float, std: float, n: int, level: float = LEVEL) -> float:
    """Probability that a two-sided paired t test of n pairs finds a true difference (noncentral t)."""
    from scipy.special import nctdtr, stdtrit

    critical = float(stdtrit(n - 1, 1 - level / 2))
    shift = abs(difference) / std * math.sqrt(n)
    below, above = (float(nctdtr(n - 1, shift, t)) for t in (-critical, critical))
    # NaN where the probability is too small to be computed.
    return 1 - (0 if math.isnan(above) else above) + (0 if math.isnan(below) else below)


def detectable(std: float, n: int, level: float = LEVEL) -> float:
    """The true difference that n pairs find with probability POWER."""
    low, high = 0.0, half_width(std, n, level)
    while power_of(high, std, n, level) < POWER:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power_of(middle, std, n, level) < POWER else (low, middle)
    return high


def seeds_needed(difference: float, std: float, level: float = LEVEL) -> int | None:
    """The fewest pairs that find a true difference with probability POWER; None above MOST_SEEDS_NEEDED."""
    if power_of(difference, std, MOST_SEEDS_NEEDED, level) < POWER:
        return None
    low, high = 1, 2
    while power_of(difference, std, high, level) < POWER:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power_of(difference, std, middle, level) < POWER else (low, middle)
    return high


@dataclass(frozen=True)
class Correlation:
    """A rank correlation of n pairs and its 95% interval; None where undefined (all tied; too few; exactly +-1)."""

    value: float | None
    ci95: tuple[float, float] | None


def kendall(a: Sequence[float], b: Sequence[float]) -> Correlation:
    """Kendall's tau-b. Interval: Fisher z with Fieller's variance 0.437 / (n - 4), from 5 pairs on."""
    n, signs = len(a), []
    for i in range(n):
        signs += [(_sign(a[i] - a[j]), _sign(b[i] - b[j])) for j in range(i)]
    untied = math.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))
    value = sum(x * y for x, y in signs) / untied if untied else None
    return Correlation(value, _fisher_interval(value, 0.437 / (n - 4) if n > 4 else None))


def spearman(a: Sequence[float], b: Sequence[float]) -> Correlation:
    """Spearman's rho over mid-ranks. Interval: Fisher z with the variance (1 + rho^2 / 2) / (n - 3) of Bonett and
    Wright (2000), from 4 pairs on."""
    n, ranks = len(a), (mid_ranks(a), mid_ranks(b))
    middle = (n + 1) / 2
    x, y = ([rank - middle for rank in side] for side in ranks)
    spread = math.sqrt(sum(v * v for v in x) * sum(v * v for v in y))
    value = sum(v * w for v, w in zip(x, y, strict=True)) / spread if spread else None
    return Correlation(
        value, _fisher_interval(value, (1 + value**2 / 2) / (n - 3) if value is not None and n > 3 else None)
    )


def mid_ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, the smallest first; ties share the mean of their ranks."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _fisher_interval(value: float | None, variance: float | None) -> tuple[float, float] | None:
    if value is None or variance is None or abs(value) > 1 - 1e-12:
        return None
    z, half = math.atanh(value), 1.959963984540054 * math.sqrt(variance)
    return math.tanh(z - half), math.tanh(z + half)


def spread_of_values(values: Sequence[float]) -> float:
    """The standard deviation (n - 1) of two values or more; 0 where they are the same but for rounding."""
    return _std(values, math.fsum(values) / len(values))


def _std(values: Sequence[float], mean: float) -> float:
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    # Rounding leaves a last digit where all values are the same; it is no spread.
    return math.sqrt(variance) if max(values) - min(values) > 1e-9 * max(1.0, abs(mean)) else 0.0


def _interval(mean: float, std: float, n: int) -> tuple[float, float]:
    half = half_width(std, n)
    return mean - half, mean + half
