"""The same trials for every row, on held-out training images: what `ablate tune` does."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaformer_ablate.analysis.tables.table import plan_task
from metaformer_ablate.api.execution import Execution
from metaformer_ablate.api.experiment import Experiment
from metaformer_ablate.api.training import Ended, train_missing
from metaformer_ablate.records.status import RunState, run_states
from metaformer_ablate.records.tuning import Tuning, choose, path_of, trial_plans, write_tuning
from metaformer_ablate.sweep.jobs import measured_seconds, plan_jobs
from metaformer_ablate.sweep.scheduler import ProgressListener
from metaformer_ablate.system.console import duration

logger = logging.getLogger(__name__)

Grid = Mapping[str, Sequence[Any]]


def tell_cost(experiment: Experiment, grid: Grid, seeds: Sequence[int]) -> int:
    """Says what the trials cost, in time where records of the table or of trials tell; returns the runs to train."""
    plans = [chosen for _, chosen in trial_plans(experiment.plan, grid)]
    jobs, states = plan_jobs(plans, seeds, experiment.store, experiment.data)
    _, of_table = plan_jobs([experiment.plan], (0,), experiment.store, experiment.data)
    seconds = measured_seconds(jobs, [*states, *of_table])
    told = "" if seconds is None else f"; about {duration(seconds)} one after another"
    rows, each = len(experiment.plan.everything()), f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    logger.info(
        f"{rows} rows with {len(plans)} trials of {each}, all on held-out training images: {len(jobs)} runs to train, "
        f"where {rows} are one seed of the table{told}"
    )
    return len(jobs)


def tune(
    experiment: Experiment,
    grid: Grid,
    seeds: Sequence[int],
    execution: Execution,
    listener: ProgressListener,
    metric: str | None = None,
    **how: Any,
) -> tuple[Tuning | None, Path, Ended]:
    """Trains the trials that are missing, chooses for each row, and writes the choice.

    None is chosen while a trial is left or has failed. `how` is of `train_missing`. Raises RequestError as `choose` and
    `train_missing` do.
    """
    trials = trial_plans(experiment.plan, grid)
    store, path = experiment.store, path_of(experiment.plan, experiment.store)
    tell_cost(experiment, grid, seeds)
    plans = [chosen for _, chosen in trials]
    ended = train_missing(plans, seeds, store, experiment.data, execution, listener, **how)
    states = []
    for point, chosen in trials:
        runs: dict[str, list[RunState]] = {}
        for row, spec in chosen.everything():
            fingerprint = experiment.data.fingerprint(spec.data.name, spec.data.reader)
            runs[row] = run_states(spec, seeds, store, fingerprint)
        states.append((point, runs))
    left = sum(run.status not in ("ok", "diverged") for _, runs in states for row in runs.values() for run in row)
    if left:
        logger.info(f"{left} trials have no result, so nothing was chosen")
        return None, path, ended
    chosen_metric = plan_task(experiment.plan).metric(metric)
    tuning = choose(experiment.plan, chosen_metric, seeds, grid, states)
    write_tuning(path, tuning)
    return tuning, path, ended
