"""Statistics of few runs paired by seed. Loads scipy.special only: no torch, no pandas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PAIRED_T = "paired t over common seeds, Holm over the rows"
UNDEFINED_T = "paired t undefined: the differences are all the same"


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


def paired_difference(row: Sequence[float], baseline: Sequence[float]) -> Difference:
    """row minus baseline, both in the order of the seeds they share. Raises ValueError where there is no pair."""
    differences = [a - b for a, b in zip(row, baseline, strict=True)]
    n = len(differences)
    if n == 0:
        raise ValueError("no pair to compare")
    mean = math.fsum(differences) / n
    if n == 1:
        return Difference(1, mean, None, None, "one pair: no spread")
    std = _std(differences, mean)
    if std == 0:
        return Difference(n, mean, None, None, UNDEFINED_T)
    from scipy.special import stdtr

    p = 2 * float(stdtr(n - 1, -abs(mean) / (std / math.sqrt(n))))
    return Difference(n, mean, _interval(mean, std, n), p, PAIRED_T)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) over those that are not None: adjusted p, at most 1."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = largest
    return adjusted


def _std(values: Sequence[float], mean: float) -> float:
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    # Rounding leaves a last digit where all values are the same; it is no spread.
    return math.sqrt(variance) if max(values) - min(values) > 1e-9 * max(1.0, abs(mean)) else 0.0


def _interval(mean: float, std: float, n: int) -> tuple[float, float]:
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return mean - half, mean + half
