"""`ablate run`: train what experiments lack."""

from __future__ import annotations

import json
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.options import (
    NUMBER,
    Execution,
    make_ready,
    names_and_project,
    options,
    seeds_of,
    split_words,
    store_of,
    warn_problems,
)
from metaformer_ablate.errors import ModelRefused, RequestError
from metaformer_ablate.system.console import out_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.status import RunState
    from metaformer_ablate.records.store import Store
    from metaformer_ablate.sweep.jobs import Job
    from metaformer_ablate.sweep.launchers.base import Launcher
    from metaformer_ablate.tracking.tracking import Tracking

logger = logging.getLogger(__name__)


@click.command("run")
@click.argument("words", nargs=-1, metavar="EXPERIMENT... [KEY.PATH=VALUE]...")
@options("recipe", "seeds", "results", "data", "device", "execution")
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
@click.option("--retry-failed", is_flag=True, help="Train failed runs again; diverged ones are results.")
@click.option("--max-hours", type=NUMBER, metavar="H", help="Begin no run after H hours.")
@options("wandb", "json")
def run_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    device: str,
    execution: Execution,
    dry_run: bool,
    retry_failed: bool,
    max_hours: float | None,
    wandb: str | None,
    as_json: bool,
) -> int:
    """Train the runs that experiments lack, then print their tables."""
    from metaformer_ablate.analysis.tables.render import render
    from metaformer_ablate.analysis.tables.table import build_table
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.spec.plan import plan
    from metaformer_ablate.sweep.jobs import plan_jobs
    from metaformer_ablate.tracking.tracking import Tracking

    everything, project = names_and_project(words, wandb)
    names, overrides = split_words(everything)
    if not names:
        raise RequestError("give the name of an experiment; `ablate list` shows them")
    if max_hours is not None and not max_hours > 0:
        raise RequestError(f"--max-hours is {max_hours:g}; allowed: a number above 0")
    if max_hours is not None and execution.launcher == "slurm":
        deadline = f"--slurm deadline=now+{60 * max_hours:.0f}minutes"
        raise RequestError(f"--max-hours: Slurm's queue says when runs begin; to end by then, give {deadline}")
    plans = [plan(name, recipe or "digits", overrides) for name in dict.fromkeys(names)]
    wanted = seeds_of(seeds) or (0,)
    store, folder = store_of(results), DataFolder.choose(data)
    jobs, states = plan_jobs(plans, wanted, store, folder, retry_failed)
    warn_problems(store)
    code = 0
    tracking, tracked = Tracking(), None
    if project is not None and not dry_run:
        tracked = tracking.resolve(project, recipe=plans[0].recipe.name, overrides=overrides)
    if dry_run:
        _announce(jobs, states)
        for job in jobs:
            logger.info(
                f"  {job.spec.run_id}  {job.name}" + (f" (also {', '.join(job.rows[1:])})" if job.rows[1:] else "")
            )
    elif jobs:
        make_ready(jobs, store, folder)
        possible = _possible(jobs, device) if execution.launcher == "local" else jobs
        code = _train(possible, states, store, folder, device, execution, max_hours, tracking, tracked)
        code = code or int(len(possible) < len(jobs))
        store.problems.clear()
    tables = [build_table(chosen, store, folder, wanted) for chosen in plans]
    if tracked is not None:
        for chosen, table in zip(plans, tables, strict=True):
            tracking.log_table(tracked, table.to_json(), chosen, store)
    trees = [table.to_json() for table in tables]
    runs = {run["run_id"]: run for tree in trees for row in tree["rows"] for run in row["runs"]}
    if as_json:
        tree = {"tables": trees, "runs": list(runs.values()), "to_run": len(jobs) if dry_run else 0}
        click.echo(json.dumps(tree, indent=1, allow_nan=False))
    elif not dry_run:
        whole = out_width() is None
        click.echo("\n".join(render(table, "text", notes=whole) for table in tables), nl=False)
    trained = {job.spec.run_id for job in jobs}
    for run in runs.values():
        if run["status"] == "failed" or run["run_id"] in trained:
            _tell_ending(run, store)
    failed = any(run["status"] == "failed" for run in runs.values())
    return 1 if failed and not dry_run else code


def _possible(jobs: Sequence[Job], device: str) -> list[Job]:
    """The jobs whose model can be built and run on this device; says of the others why not.

    What is tried are components of the user's own. Raises ModelRefused where no job is left.
    """
    from metaformer_ablate.system.devices import choose_device
    from metaformer_ablate.tasks.registry import task_of

    refused: dict[str, str] = {}
    possible: list[Job] = []
    for job in jobs:
        key, model = job.spec.with_seed(0).run_id, job.spec.model
        if model.own_names() and key not in refused:
            # The weights to start from may not be there yet.
            blank = job.spec.model_copy(update={"model": model.model_copy(update={"init_from": None})})
            first = device.split(",")[0]
            try:
                task_of(blank).part("net").build_net(blank, device=choose_device(first))
                refused[key] = ""
            except ModelRefused as error:
                refused[key] = f"{job.rows[0]}: {error}"
        if not refused.get(key):
            possible.append(job)
    why = [text for text in refused.values() if text]
    for text in why[not possible :]:
        logger.error(text)
    if not possible:
        raise ModelRefused(why[0])
    return possible


def _tell_ending(run: dict[str, Any], store: Store) -> None:
    """A line about a run that did not end as one would like."""

    if run["status"] not in ("failed", "diverged"):
        return
    folder, record = store.folder(run["run_id"]), store.read(run["run_id"])
    reason = record.data["reason"] if record is not None else "its record has gone"
    where = f"log {folder / 'log.txt'}; again with --retry-failed"
    if run["status"] == "diverged":
        where = f"a result, history {folder / 'history.csv'}"
    logger.info(f"{run['status']}: run {run['run_id']} (seed {run['seed']}): {reason}; {where}")


def _announce(jobs: Sequence[Job], states: Sequence[RunState]) -> float | None:
    """Says what is to be trained and how long that takes, where records tell; the seconds, one run after another."""
    from metaformer_ablate.sweep.jobs import measured_seconds
    from metaformer_ablate.system.console import duration

    seconds = measured_seconds(jobs, states)
    told = "" if seconds is None else f": about {duration(seconds)} one after another"
    logger.info(f"{len(states)} runs, {len(states) - len(jobs)} have a record, {len(jobs)} to train{told}")
    return seconds


def _train(
    jobs: Sequence[Job],
    states: Sequence[RunState],
    store: Store,
    folder: DataFolder,
    device: str,
    execution: Execution,
    max_hours: float | None,
    tracking: Tracking,
    wandb: dict[str, Any] | None,
) -> int:
    """Trains jobs with a live view; says how to go on where it is stopped."""
    from metaformer_ablate.sweep.jobs import make_request
    from metaformer_ablate.sweep.launchers.base import choose
    from metaformer_ablate.sweep.progress import listener_for
    from metaformer_ablate.sweep.scheduler import Limits, Sweep
    from metaformer_ablate.system.signals import Interrupted, StopRequest

    listener = listener_for(sys.stderr)
    limits = Limits(hours=max_hours, stall_seconds=60 * execution.stall_minutes)
    launcher: Launcher | None = None
    with StopRequest().catching() as stop:
        try:
            specs = [job.spec for job in jobs]
            given = {"specs": specs, "device": device, "stop": stop, "tracking": tracking, **execution.options()}
            launcher = choose(execution.launcher, **given)
            listener.begin(jobs, _announce(jobs, states))
            listener.at_once = max(1, min(launcher.capacity, len(jobs)))
            saved = {key: getattr(execution, key) for key in ("keep_checkpoints", "checkpoint_seconds")}
            make = partial(make_request, store=store, folder=folder, device=device, wandb=wandb, **saved)
            why = Sweep(jobs, make, launcher, store, listener, limits, stop).run()
            if why:
                left = len(jobs) - listener.finished
                logger.info(f"{why}: {left} runs are left; the same command goes on with them")
            return 1 if why else 0
        except Interrupted as interruption:
            done = getattr(listener, "finished", 0)
            kept = f"{done} finished run{' is' if done == 1 else 's are'} kept; " if done else ""
            interruption.advice = f"{kept}the same command goes on with the {len(jobs) - done} that are left"
            raise
        finally:
            listener.close()
            if launcher is not None:
                launcher.close()
