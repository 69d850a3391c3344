"""Seeds by the spread of the first ones (`ablate run --until`): what a table takes from it, and what it says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.seed_counts import SeedCounts, read_seed_counts
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.statistics.power import Pairs, amount
from metaformer_ablate.statistics.stats import half_width, spread_of_values
from metaformer_ablate.tasks.base import Metric, Task


def counts_for(plan: Plan, store: Store, seeds: Sequence[int] | None) -> tuple[SeedCounts | None, list[str]]:
    """The seed counts that a table is to follow, and warnings. Seeds that were asked for stand over them."""
    try:
        found = read_seed_counts(plan, store)
    except RequestError as error:
        return None, [f"the seed counts cannot be read: {error}"]
    if found is None:
        return None, []
    if not found.is_of(plan):
        return None, ["the seed counts of --until are of other runs than the experiment and the recipe make today"]
    if seeds is not None:
        said = "its intervals are of a number of seeds that was fixed beforehand"
        return None, [f"this table has other seeds than --until {found.until:g} decided: {said}"]
    return found, []


def seed_counts_part(counts: SeedCounts, pairs: Mapping[str, Pairs], task: Task, metric: Metric) -> dict[str, Any]:
    """What a table says: how the seeds were decided, and which rows did not get there.

    The seeds follow from the spread of one metric. For normal differences the intervals of every metric hold, for the
    means are independent of all deviations of the first seeds; but only of that one a width was asked for.
    """
    decided_by = task.metric(counts.metric)
    same = decided_by == metric
    reached = {row: _half(found, counts.first) for row, found in pairs.items() if len(found) >= counts.first}
    short = {row: half for row, half in reached.items() if half > counts.until * (1 + 1e-9)} if same else {}
    text = (
        f"Seeds by the spread{'' if same else f' of {decided_by.phrase}'}: of the first {counts.first} follows how "
        f"many each row gets, at most {counts.max_seeds}, for half an interval of the difference of at most "
        f"{amount(counts.until, decided_by.difference_unit, decided_by.digits)}{'' if same else ' there'}. Intervals "
        f"and p are of Stein's two-stage t with {counts.first - 1} degrees of freedom, and hold for any number that "
        "comes out. "
    )
    if short:
        named = ", ".join(f"{row} ({half:.{metric.digits}f})" for row, half in short.items())
        text += f"Not reached by: {named}."
    elif same and len(reached) == len([row for row in pairs if counts.seeds.get(row) and pairs[row]]):
        text += "All rows that have a difference got there."
    return {
        "until": counts.until,
        "metric": counts.metric,
        "first": counts.first,
        "max_seeds": counts.max_seeds,
        "seeds": dict(counts.seeds),
        "half_widths": reached,
        "not_reached": list(short),
        "text": text.strip(),
    }


def _half(pairs: Pairs, first: int) -> float:
    """Half of the two-stage interval."""
    spread = spread_of_values([here - there for here, there in pairs[:first]])
    return half_width(spread, first) * math.sqrt(first / len(pairs))
