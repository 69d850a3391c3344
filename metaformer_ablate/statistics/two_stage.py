"""How many seeds each row needs, decided by the spread of its first ones: Stein's two-stage procedure.

Stein (1945), "A two-sample test for a linear hypothesis whose power is independent of the variance", Annals of
Mathematical Statistics 16. Of normal differences the mean and the deviation are independent. So where the number of
seeds follows from the deviation of the first n alone, the mean over all of them, over that deviation, is Student's t
with n - 1 degrees of freedom, whatever number came out, and the interval is as wide as was asked for. All of the error
is spent at one look, at the spread and never at a mean. A look after each seed, at the spread of all so far, would stop
where the spread happens to be small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from metaformer_ablate.errors import RequestError
from metaformer_ablate.statistics.stats import half_width, spread_of_values

FEWEST_FIRST = 3  # with two, the t of one degree of freedom asks for hundreds

USUAL_FIRST = 5

USUAL_MOST = 20


def seeds_for(width: float, first: Sequence[float], most: int) -> int:
    """The seeds that bring half of the 95% interval of the mean to a width, by the differences of the first ones; at
    least these, at most `most`."""
    n = len(first)
    needed = (half_width(spread_of_values(first), n) * math.sqrt(n) / width) ** 2
    return max(n, min(most, math.ceil(needed - 1e-9)))


def check_until(until: float | None, seeds: tuple[int, ...] | None, most: int | None) -> tuple[int, int]:
    """How many seeds are the first ones, and the most. Raises RequestError for what does not go together."""
    if until is None:
        if most is not None:
            raise RequestError(f"--max-seeds {most} is for --until")
        return 0, 0
    if not 0 < until <= 100:
        raise RequestError(f"--until is {until:g}; allowed: a half width in points, above 0 and at most 100")
    first = USUAL_FIRST if seeds is None else len(seeds)
    if first < FEWEST_FIRST or (seeds is not None and tuple(seeds) != tuple(range(first))):
        found = ",".join(map(str, seeds or ()))
        raise RequestError(f"--seeds is {found} with --until; allowed: a number of first seeds, {FEWEST_FIRST} or more")
    chosen = max(USUAL_MOST, first) if most is None else most
    if not first <= chosen <= 1_000:
        raise RequestError(f"--max-seeds is {chosen}; allowed: at least the {first} first seeds and at most 1000")
    return first, chosen
