"""What `ablate run` and `Experiment.run` do: the runs that experiments lack, through a launcher to their records."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from metaformer_ablate.api.execution import Execution
from metaformer_ablate.api.notebook import NotebookBar, in_notebook
from metaformer_ablate.api.trying import possible_jobs
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.status import RunState
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.jobs import Job, Seeds, make_request, measured_seconds, plan_jobs
from metaformer_ablate.sweep.launchers.base import Launcher, choose
from metaformer_ablate.sweep.progress import listener_for
from metaformer_ablate.sweep.scheduler import Limits, ProgressListener, Sweep
from metaformer_ablate.system.console import duration
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tracking.tracking import Tracking

logger = logging.getLogger(__name__)


def make_ready(jobs: Sequence[Job], store: Store, folder: DataFolder) -> None:
    """Fetches the data that jobs lack, and says whose code they run.

    Raises RequestError where data cannot be had or records cannot be written.
    """
    _tell_of_code(jobs)
    fetch_data([spec for job in jobs for spec in (*job.first, job.spec)], folder)
    store.check_writable()


def fetch_data(specs: Sequence[RunSpec], folder: DataFolder) -> None:
    """Downloads the data sets of runs that are not there. Raises RequestError where they cannot be had."""
    for name, reader in dict.fromkeys((spec.data.name, spec.data.reader) for spec in specs):
        folder.require(name, reader)
        if folder.missing(name):
            from metaformer_ablate.data.download import download

            download(name, folder)


def _tell_of_code(jobs: Sequence[Job]) -> None:
    from metaformer_ablate.models.class_file import tell_of_code
    from metaformer_ablate.models.class_source import find_source, split_target
    from metaformer_ablate.models.registry import COMPONENTS

    for model in (job.spec.model for job in jobs):
        for part in COMPONENTS.find(model.own_names()).values():
            tell_of_code(part.target.rpartition(":")[0], "parts.yaml")
        if model.class_place is not None:
            tell_of_code(find_source(split_target(model.class_place)[0], "model.class").path, "model.class")


def announce(jobs: Sequence[Job], states: Sequence[RunState]) -> float | None:
    """Says what is to be trained and how long that takes, where records tell; the seconds, one run after another."""
    seconds = measured_seconds(jobs, states)
    told = "" if seconds is None else f": about {duration(seconds)} one after another"
    logger.info(f"{len(states)} runs, {len(states) - len(jobs)} have a record, {len(jobs)} to train{told}")
    return seconds


def view(progress: bool = True) -> ProgressListener:
    """What shows how far a sweep is: a bar in a notebook, a live line on a terminal, else lines of the log."""
    if not progress:
        return ProgressListener()
    if in_notebook():
        return NotebookBar()
    return listener_for(sys.stderr)


@dataclass(frozen=True)
class Ended:
    """How a sweep ended: what it was to train, and why it left some of it, if it did."""

    jobs: Sequence[Job] = ()
    why: str | None = None


def train_missing(
    plans: Sequence[Plan],
    seeds: Seeds,
    store: Store,
    folder: DataFolder,
    execution: Execution,
    listener: ProgressListener,
    *,
    device: str = "auto",
    retry_failed: bool = False,
    max_hours: float | None = None,
    tracking: Tracking | None = None,
    wandb: dict[str, Any] | None = None,
    again: str = "the same call",
) -> Ended:
    """Trains the runs of plans that have no record yet, seed by seed, each once however many rows show it.

    `wandb` is of `Tracking.resolve`; `again` is what the log says goes on with what is left. What is wrong with run
    folders is warned of in the log. Raises RequestError where data cannot be had or a run cannot be carried out,
    Interrupted once a signal has asked for an end and what was under way has saved its place.
    """
    jobs, states = plan_jobs(plans, seeds, store, folder, retry_failed)
    for problem in store.problems.values():
        logger.warning(problem)
    if not jobs:
        return Ended()
    make_ready(jobs, store, folder)
    asked = len(jobs)
    if execution.launcher == "local":  # elsewhere there may be another device than here: workers try for themselves
        jobs = possible_jobs(jobs, device)
    tracking = tracking or Tracking()
    launcher: Launcher | None = None
    sweep: Sweep | None = None
    with StopRequest().catching() as stop:
        try:
            specs = [job.spec for job in jobs]
            given = {"specs": specs, "device": device, "stop": stop, "tracking": tracking, **execution.options()}
            launcher = choose(execution.launcher, **given)
            listener.begin(jobs, announce(jobs, states))
            listener.at_once = max(1, min(launcher.capacity, len(jobs)))
            request = partial(make_request, store=store, folder=folder, device=device, wandb=wandb, **execution.saved())
            limits = Limits(hours=max_hours, stall_seconds=60 * execution.stall_minutes)
            sweep = Sweep(jobs, request, launcher, store, listener, limits, stop)
            why = sweep.run()
        except Interrupted as interruption:
            done = sweep.finished if sweep is not None else 0
            kept = f"{done} finished run{' is' if done == 1 else 's are'} kept; " if done else ""
            interruption.advice = f"{kept}{again} goes on with the {len(jobs) - done} that are left"
            raise
        finally:
            listener.close()
            if launcher is not None:
                launcher.close()
    if why:
        why = f"{why}: {len(jobs) - sweep.finished} runs are left; {again} goes on with them"
        logger.info(why)
    elif len(jobs) < asked:
        why = f"{asked - len(jobs)} of {asked} runs cannot be carried out"
    store.problems.clear()
    return Ended(jobs, why)


def describe_ending(run_id: str, name: str, status: str, store: Store, retry: str = "--retry-failed") -> str | None:
    """A line about a run, with its row and seed for a name, that did not end as one would like; None of any other.
    `retry` trains it again."""
    if status not in ("failed", "diverged"):
        return None
    folder, record = store.folder(run_id), store.read(run_id)
    reason = record.data["reason"] if record is not None else "its record has gone"
    where = f"log {folder / 'log.txt'}; again with {retry}"
    if status == "diverged":
        where = f"a result, history {folder / 'history.csv'}"
    return f"{status}: run {run_id} ({name}): {reason}; {where}"
