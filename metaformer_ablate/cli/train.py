"""`ablate run`: train what experiments lack."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

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
from metaformer_ablate.errors import RequestError


@click.command("run")
@click.argument("words", nargs=-1, metavar="EXPERIMENT... [KEY.PATH=VALUE]...")
@options("recipe", "seeds", "results", "data", "device", "execution")
@click.option("--dry-run", is_flag=True, help="StopRequest after the plan.")
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
    from metaformer_ablate.system.console import say

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
    tracked = None
    if project is not None and not dry_run:
        from metaformer_ablate.tracking.tracker import resolve_tracking

        tracked = resolve_tracking(project, recipe=plans[0].recipe.name, overrides=overrides)
    if dry_run:
        _announce(jobs, states)
        for job in jobs:
            say(f"  {job.spec.run_id}  {job.name}" + (f" (also {', '.join(job.rows[1:])})" if job.rows[1:] else ""))
    elif jobs:
        make_ready(jobs, store, folder)
        code = _train(jobs, states, store, folder, device, execution, max_hours, tracked)
        store.problems.clear()
    tables = [build_table(chosen, store, folder, wanted) for chosen in plans]
    if tracked is not None:
        from metaformer_ablate.tracking.tracker import log_table

        for chosen, table in zip(plans, tables, strict=True):
            log_table(tracked, table.to_json(), chosen, store)
    trees = [table.to_json() for table in tables]
    runs = {run["run_id"]: run for tree in trees for row in tree["rows"] for run in row["runs"]}
    if as_json:
        tree = {"tables": trees, "runs": list(runs.values()), "to_run": len(jobs) if dry_run else 0}
        click.echo(json.dumps(tree, indent=1, allow_nan=False))
    elif not dry_run:
        click.echo("\n".join(render(table, "text") for table in tables), nl=False)
    trained = {job.spec.run_id for job in jobs}
    for run in runs.values():
        if run["status"] == "failed" or run["run_id"] in trained:
            _tell_ending(run, store)
    failed = any(run["status"] == "failed" for run in runs.values())
    return 1 if failed and not dry_run else code


def _tell_ending(run: dict[str, Any], store: Any) -> None:
    """A line about a run that did not end as one would like."""
    from metaformer_ablate.system.console import say

    if run["status"] not in ("failed", "diverged"):
        return
    folder = store.folder(run["run_id"])
    reason = store.read(run["run_id"]).data["reason"]
    where = f"log {folder / 'log.txt'}; again with --retry-failed"
    if run["status"] == "diverged":
        where = f"a result, history {folder / 'history.csv'}"
    say(f"{run['status']}: run {run['run_id']} (seed {run['seed']}): {reason}; {where}")


def _announce(jobs: Any, states: Any, workers: int = 1) -> float:
    """Says what is to be trained and about how many seconds that takes, and returns these."""
    from metaformer_ablate.cost.cost import count
    from metaformer_ablate.sweep.jobs import estimate_seconds
    from metaformer_ablate.system.console import duration, say

    seconds = estimate_seconds(jobs, states, lambda spec: count(spec).macs) / workers
    done = len(states) - len(jobs)
    at_once = f" with {workers} at once" if workers > 1 else ""
    say(f"{len(states)} runs, {done} have a record, {len(jobs)} to train: about {duration(seconds)}{at_once}")
    return seconds


def _train(
    jobs: Any,
    states: Any,
    store: Any,
    folder: Any,
    device: str,
    execution: Execution,
    max_hours: float | None,
    wandb: dict[str, Any] | None,
) -> int:
    """Trains jobs with a live view; says how to go on where it is stopped."""
    from metaformer_ablate.sweep.jobs import make_request
    from metaformer_ablate.sweep.launchers.base import choose
    from metaformer_ablate.sweep.progress import LiveLine, PlainLines
    from metaformer_ablate.sweep.scheduler import Limits, Sweep
    from metaformer_ablate.system.console import say
    from metaformer_ablate.system.signals import Interrupted, StopRequest

    listener = LiveLine() if sys.stderr.isatty() else PlainLines()
    limits = Limits(hours=max_hours, stall_seconds=60 * execution.stall_minutes)
    launcher = None
    with StopRequest().catching() as stop:
        try:
            specs = [job.spec for job in jobs]
            launcher = choose(execution.launcher, specs=specs, device=device, stop=stop, **execution.options())
            listener.begin(jobs, _announce(jobs, states, min(launcher.capacity, len(jobs))))
            make = partial(
                make_request,
                store=store,
                folder=folder,
                device=device,
                keep_checkpoints=execution.keep_checkpoints,
                checkpoint_seconds=execution.checkpoint_seconds,
                wandb=wandb,
            )
            why = Sweep(jobs, make, launcher, store, listener, limits, stop).run()
            if why:
                left = len(jobs) - listener.finished
                say(f"{why}: {left} runs are left; the same command goes on with them")
            return 1 if why else 0
        except Interrupted:
            done = getattr(listener, "finished", 0)
            say(f"{done} finished runs are kept; the same command goes on with the {len(jobs) - done} that are left")
            raise
        finally:
            if isinstance(listener, LiveLine):
                listener.close()
            if launcher is not None:
                launcher.close()
