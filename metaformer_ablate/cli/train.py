"""`ablate run`: train what experiments lack."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_experiments
from metaformer_ablate.cli.options import (
    INTEGER,
    NUMBER,
    examples,
    names_and_project,
    options,
    seeds_of,
    split_words,
    store_of,
    warn_problems,
)
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.console import out_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metaformer_ablate.api.execution import Execution
    from metaformer_ablate.api.experiment import Experiment
    from metaformer_ablate.api.table import ResultTable
    from metaformer_ablate.records.store import Store
    from metaformer_ablate.sweep.jobs import Seeds

logger = logging.getLogger(__name__)


_RUN_EXAMPLES = examples(
    "ablate run pooling_size",
    "ablate run token_mixers normalization --seeds 3",
    "ablate run table5 --recipe cifar10_small --seeds 3 --dry-run",
    "ablate run pooling_size train.epochs=30 model.size=t12",
    "ablate run pooling_size --until 0.5 --max-seeds 12",
)


@click.command("run", epilog=_RUN_EXAMPLES)
@click.argument("words", nargs=-1, metavar="EXPERIMENT... [KEY.PATH=VALUE]...", shell_complete=complete_experiments)
@options("recipe", "tuned", "seeds", "results", "data", "device", "execution")
@click.option("--until", type=NUMBER, metavar="POINTS", help="Add seeds until half an interval is at most so much.")
@click.option("--max-seeds", type=INTEGER, metavar="N", help="Of --until: at most N seeds of a row (default: 20).")
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
@click.option("--retry-failed", is_flag=True, help="Train failed runs again; diverged ones are results.")
@click.option("--max-hours", type=NUMBER, metavar="H", help="Begin no run after H hours.")
@options("wandb", "json")
def run_command(
    words: tuple[str, ...],
    recipe: str | None,
    tuned: bool,
    seeds: str | None,
    results: str | None,
    data: str | None,
    device: str,
    execution: Execution,
    until: float | None,
    max_seeds: int | None,
    dry_run: bool,
    retry_failed: bool,
    max_hours: float | None,
    wandb: str | None,
    as_json: bool,
) -> int:
    """Train the runs that experiments lack, then print their tables.

    What has a record is not trained again. After Ctrl-C the same command goes on where it was stopped.
    """
    from metaformer_ablate.api.experiment import Experiment
    from metaformer_ablate.api.training import train_missing, view
    from metaformer_ablate.api.until import seeds_so_far, train_until
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.spec.plan import plan
    from metaformer_ablate.statistics.two_stage import check_until
    from metaformer_ablate.tracking.tracking import Tracking

    everything, project = names_and_project(words, wandb)
    names, overrides = split_words(everything)
    if not names:
        raise RequestError("give the name of an experiment; `ablate list` shows them")
    _check_hours(max_hours, execution)
    plans = [plan(name, recipe or "digits", overrides) for name in dict.fromkeys(names)]
    first, most = check_until(until, seeds_of(seeds), max_seeds)
    wanted = seeds_of(seeds) or tuple(range(first or 1))
    store, folder = store_of(results), DataFolder.choose(data)
    experiments = [Experiment(chosen, store, folder) for chosen in plans]
    if tuned:
        experiments = [experiment.tuned() for experiment in experiments]
        plans = [experiment.plan for experiment in experiments]
    if dry_run:
        so_far = wanted if until is None else seeds_so_far(experiments, until, first, most)
        _tell_plan(experiments, wanted, so_far, retry_failed, as_json)
        return 0
    tracking, tracked = Tracking(), None
    if project is not None:
        tracked = tracking.resolve(project, recipe=plans[0].recipe.name, overrides=overrides)
    how: dict[str, Any] = {"device": device, "retry_failed": retry_failed, "max_hours": max_hours}
    how |= {"tracking": tracking, "wandb": tracked, "again": "the same command"}
    if until is None:
        ended = train_missing(plans, wanted, store, folder, execution, view(), **how)
    else:
        ended = train_until(experiments, until, first, most, execution, view, **how)
    tables = [experiment.table(seeds=_shown(experiment, wanted, until is not None)) for experiment in experiments]
    if tracked is not None:
        for chosen, table in zip(plans, tables, strict=True):
            tracking.log_table(tracked, table.to_json(), chosen, store)
    if not as_json:
        whole = out_width() is None
        click.echo("\n".join(table.to_text(notes=whole) for table in tables), nl=False)
    runs = _runs(tables, as_json)
    _tell_endings(tables, runs, {job.spec.run_id for job in ended.jobs}, store)
    return 1 if ended.why or any(run["status"] == "failed" for run in runs) else 0


def _tell_endings(
    tables: Sequence[ResultTable], runs: Sequence[dict[str, Any]], trained: set[str], store: Store
) -> None:
    """A line for each run that failed, and for each that was trained and diverged."""
    from metaformer_ablate.api.training import describe_ending

    names = {
        run.run_id: f"{table.experiment}/{row.name} seed {run.seed}"
        for table in reversed(tables)
        for row in (*table.rows, *(table.interactions or ()))
        for run in row.runs
    }
    for run in runs:
        told = describe_ending(run["run_id"], names[run["run_id"]], run["status"], store)
        if told and (run["status"] == "failed" or run["run_id"] in trained):
            logger.info(told)


def _check_hours(hours: float | None, execution: Execution) -> None:
    from metaformer_ablate.api.execution import check_hours

    check_hours(hours, "--max-hours")
    if hours is not None and execution.launcher == "slurm":
        deadline = f"--slurm deadline=now+{60 * hours:.0f}minutes"
        raise RequestError(f"--max-hours: Slurm's queue says when runs begin; to end by then, give {deadline}")


def _tell_plan(
    experiments: Sequence[Experiment], wanted: tuple[int, ...], seeds: Seeds, retry_failed: bool, as_json: bool
) -> None:
    """What would be trained of `seeds`, which are `wanted` or those of `--until` so far, and how long it would take."""
    from metaformer_ablate.api.training import announce
    from metaformer_ablate.api.until import is_decided
    from metaformer_ablate.sweep.jobs import plan_jobs

    store, folder = experiments[0].store, experiments[0].data
    jobs, states = plan_jobs([experiment.plan for experiment in experiments], seeds, store, folder, retry_failed)
    warn_problems(store)
    announce(jobs, states)
    for job in jobs:
        also = f" (also {', '.join(job.rows[1:])})" if job.rows[1:] else ""
        logger.info(f"  {job.spec.run_id}  {job.name}{also}")
    until = isinstance(seeds, Mapping)
    if until and not all(map(is_decided, experiments)):
        logger.info(f"then the spread of the first {len(wanted)} seeds decides which rows get more")
    tables = [experiment.table(seeds=_shown(experiment, wanted, until)) for experiment in experiments]
    _runs(tables, as_json, to_run=len(jobs))


def _shown(experiment: Experiment, wanted: tuple[int, ...], until: bool) -> tuple[int, ...] | None:
    """The seeds of a table: those that were asked for, and None, which is for the table to know, once it was decided
    how many each row gets."""
    from metaformer_ablate.api.until import is_decided

    return None if until and is_decided(experiment) else wanted


def _runs(tables: Sequence[ResultTable], as_json: bool, to_run: int | None = None) -> list[dict[str, Any]]:
    """The runs of tables, each once; prints all of it as JSON where that is asked for.

    `to_run` is how many of them are to be trained; None: those without a result, which a run has left.
    """
    trees = [table.to_json() for table in tables]
    rows = [row for tree in trees for row in (*tree["rows"], *tree.get("interactions", ()))]
    runs = {run["run_id"]: run for row in rows for run in row["runs"]}
    if as_json:
        left = sum(run["status"] not in ("ok", "diverged", "failed") for run in runs.values())
        tree = {"tables": trees, "runs": list(runs.values()), "to_run": left if to_run is None else to_run}
        click.echo(json.dumps(tree, indent=1, allow_nan=False))
    return list(runs.values())
