"""The best of so many trials: what a budget of trials can be expected to find.

Dodge et al. (EMNLP 2019, "Show your work") ask for the expected best result as a function of the budget; their
estimator draws with replacement and is too low. Tang et al. (ACL 2020, "Showing your work doesn't always work") give
the unbiased one: the mean of the best over all subsets of the trials. Of trials on a grid it is the expected best of so
many trials drawn from that grid, and says nothing of values beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, fsum


def expected_best(values: Sequence[float], sign: int = 1) -> list[float]:
    """The expected best of 1, 2, ... all trials, drawn without replacement.

    `sign` is 1 where higher values are better, -1 where lower ones are. The last one is the best of all.
    """
    ordered = sorted(values, key=lambda value: sign * value)
    n = len(ordered)
    return [
        fsum(comb(rank, budget - 1) * value for rank, value in enumerate(ordered)) / comb(n, budget)
        for budget in range(1, n + 1)
    ]
