"""`ablate run`: train what experiments lack."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

import click

from metaformer_ablate.cli import Interrupted
from metaformer_ablate.commands.common import options, seeds_of, split_words, store_of, tell_problems
from metaformer_ablate.yaml_reader import RequestError


@click.command("run")
@click.argument("words", nargs=-1, metavar="EXPERIMENT... [KEY.PATH=VALUE]...")
@options("recipe", "seeds", "results", "data", "device")
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
@click.option("--retry-failed", is_flag=True, help="Train failed runs again; diverged ones are results.")
@click.option("--max-hours", type=float, metavar="H", help="Begin no run after H hours.")
@options("json")
def run_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    device: str,
    dry_run: bool,
    retry_failed: bool,
    max_hours: float | None,
    as_json: bool,
) -> int:
    """Train the runs that experiments lack, then print their tables."""
    from metaformer_ablate.analysis.tables import build_table, render
    from metaformer_ablate.data.files import DataFolder
    from metaformer_ablate.experiment import plan
    from metaformer_ablate.progress import say
    from metaformer_ablate.sweep import jobs_of

    names, overrides = split_words(words)
    if not names:
        raise RequestError("give the name of an experiment; `ablate list` shows them")
    if max_hours is not None and not max_hours > 0:
        raise RequestError(f"--max-hours is {max_hours:g}; allowed: a number above 0")
    plans = [plan(name, recipe or "digits", overrides) for name in dict.fromkeys(names)]
    wanted = seeds_of(seeds) or (0,)
    store, folder = store_of(results), DataFolder.choose(data)
    jobs, states = jobs_of(plans, wanted, store, folder, retry_failed)
    tell_problems(store)
    code = 0
    if dry_run:
        _announce(jobs, states)
        for job in jobs:
            say(f"  {job.spec.run_id}  {job.name}" + (f" (also {', '.join(job.rows[1:])})" if job.rows[1:] else ""))
    elif jobs:
        store.check_writable()
        code = _train(jobs, states, store, folder, device, max_hours)
        store.problems.clear()
    tables = [build_table(chosen, store, folder, wanted) for chosen in plans]
    failed = [r for table in tables for row in table["rows"] for r in row["runs"] if r["status"] == "failed"]
    if as_json:
        states_now = {r["run_id"]: r for table in tables for row in table["rows"] for r in row["runs"]}
        tree = {"tables": tables, "runs": list(states_now.values()), "to_run": len(jobs) if dry_run else 0}
        click.echo(json.dumps(tree, indent=1, allow_nan=False))
    elif not dry_run:
        click.echo("\n".join(render(table, "text") for table in tables), nl=False)
    for run in {run["run_id"]: run for run in failed}.values():
        log = store.folder(run["run_id"]) / "log.txt"
        say(f"failed: run {run['run_id']} (seed {run['seed']}), log {log}; again with --retry-failed")
    return 1 if failed and not dry_run else code


def _announce(jobs: Any, states: Any) -> float:
    """Says what is to be trained and about how many seconds that takes, and returns these."""
    from metaformer_ablate.cost import count
    from metaformer_ablate.progress import duration, say
    from metaformer_ablate.sweep import estimate_seconds

    seconds = estimate_seconds(jobs, states, lambda spec: count(spec).macs)
    done = len(states) - len(jobs)
    say(f"{len(states)} runs, {done} have a record, {len(jobs)} to train: about {duration(seconds)}")
    return seconds


def _train(jobs: Any, states: Any, store: Any, folder: Any, device: str, max_hours: float | None) -> int:
    """Trains jobs with a live view; says how to go on where it is stopped."""
    from metaformer_ablate.progress import LiveLine, PlainLines, say

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one stops at once
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    listener = LiveLine() if sys.stderr.isatty() else PlainLines()
    finished = 0
    try:
        from metaformer_ablate.run import Runner, choose_device
        from metaformer_ablate.sweep import run_jobs

        runner = Runner(store, folder, choose_device(device))
        runner.data(jobs[0].spec.data)  # what is missing is said before anything is announced
        listener.begin(jobs, _announce(jobs, states))
        outcome = run_jobs(jobs, runner, listener, max_hours)
        finished = len(outcome.done)
        if outcome.stopped:
            say(f"{outcome.stopped}: {len(outcome.left)} runs are left; the same command goes on with them")
            return 1
        return 0
    except Interrupted as interruption:
        finished = getattr(listener, "finished", finished)
        say(
            f"{finished} finished runs are kept; the same command goes on with the {len(jobs) - finished} that are left"
        )
        raise interruption
    finally:
        if isinstance(listener, LiveLine):
            listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)
