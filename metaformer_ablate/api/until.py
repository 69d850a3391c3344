"""Seeds where they matter (`ablate run --until`): the spread of each row's first seeds decides how many it gets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.api.execution import Execution
from metaformer_ablate.api.experiment import Experiment
from metaformer_ablate.api.training import Ended, train_missing
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.seed_counts import SeedCounts, path_of, read_seed_counts, write_seed_counts
from metaformer_ablate.statistics.two_stage import seeds_for
from metaformer_ablate.sweep.scheduler import ProgressListener
from metaformer_ablate.system.clock import now

logger = logging.getLogger(__name__)


def train_until(
    experiments: Sequence[Experiment],
    until: float,
    first: int,
    most: int,
    execution: Execution,
    view: Callable[[], ProgressListener],
    **how: Any,
) -> Ended:
    """Trains the first seeds of all rows, decides how many each row gets, writes that, and trains the rest.

    What was decided before is kept; another `until`, `first` or `most` then is refused, for deciding again after a look
    is another test. `how` is of `train_missing`. Raises RequestError as that does.
    """
    for each in experiments:
        _check_same(each, until, first, most)
    plans, store, data = [each.plan for each in experiments], experiments[0].store, experiments[0].data
    begun = train_missing(plans, range(first), store, data, execution, view(), **how)
    if begun.why:
        return begun
    for each in experiments:
        counts = read_seed_counts(each.plan, store) or _decide(each, until, first, most)
        if counts is None:
            return begun
        more = {row: n for row, n in counts.seeds.items() if n > first and row != each.baseline}
        said = ", ".join(f"{row} {n}" for row, n in more.items())
        logger.info(f"{each.name}: {f'more than {first} seeds for {said}' if more else f'{first} seeds are enough'}")
    seeds = seeds_so_far(experiments, until, first, most)
    ended = train_missing(plans, seeds, store, data, execution, view(), **how)
    return Ended([*begun.jobs, *ended.jobs], ended.why)


def is_decided(experiment: Experiment) -> bool:
    """Whether it is written down how many seeds each row of an experiment gets."""
    return read_seed_counts(experiment.plan, experiment.store) is not None


def seeds_so_far(experiments: Sequence[Experiment], until: float, first: int, most: int) -> dict[str, range]:
    """The seeds of each run, by its id of seed 0: those that were decided, else the first ones.

    Raises RequestError where they were decided with another `until`, `first` or `most`.
    """
    seeds: dict[str, range] = {}
    for each in experiments:
        _check_same(each, until, first, most)
        counts = read_seed_counts(each.plan, each.store)
        for row, spec in each.plan.everything():
            number = first if counts is None else counts.seeds[row]
            seeds[spec.run_id] = range(max(len(seeds.get(spec.run_id, ())), number))
    return seeds


def _check_same(experiment: Experiment, until: float, first: int, most: int) -> None:
    counts = read_seed_counts(experiment.plan, experiment.store)
    if counts is None:
        return
    path = path_of(experiment.plan, experiment.store)
    if not counts.is_of(experiment.plan):
        raise RequestError(f"{path}: is of other runs than the experiment and the recipe make today; move it aside")
    if (counts.until, counts.first, counts.max_seeds) != (until, first, most):
        raise RequestError(
            f"{path}: the seeds were decided with --until {counts.until:g} --seeds {counts.first} --max-seeds "
            f"{counts.max_seeds}; deciding again after a look is another test, so only these are allowed"
        )


def _decide(experiment: Experiment, until: float, first: int, most: int) -> SeedCounts | None:
    """The seeds of each row, written down; None where runs of the first seeds are lacking."""
    plan, store = experiment.plan, experiment.store
    table = build_table(plan, store, experiment.data, range(first), spread=False)
    states = [run for row in (*table.rows, *(table.interactions or ())) for run in row.runs]
    if lacking := sum(run.status not in ("ok", "diverged") for run in states):
        logger.info(f"{experiment.name}: {lacking} of the first runs have no result, so nothing was decided")
        return None
    there = table.baseline_row.values()
    counts = {}
    for row in (*table.rows, *(table.interactions or ())):
        here = {run.seed: value for run in row.runs if (value := run.value(table.metric.name)) is not None}
        pairs = [here[seed] - there[seed] for seed in range(first) if seed in here and seed in there]
        alone = row.name == table.baseline or len(pairs) < first  # no difference, now or ever: a seed diverged
        counts[row.name] = first if alone else seeds_for(until, pairs, most)
    applicable = {name for name, _ in plan.everything()}
    counts = {name: n for name, n in counts.items() if name in applicable}
    counts[table.baseline] = max(counts.values())
    found = SeedCounts(
        experiment=experiment.name,
        recipe=experiment.recipe,
        overrides=list(plan.overrides),
        decided=now(),
        metric=table.metric.name,
        until=float(until),
        first=first,
        max_seeds=most,
        seeds=counts,
        runs={row: spec.run_id for row, spec in plan.everything()},
    )
    write_seed_counts(path_of(plan, store), found)
    return found
