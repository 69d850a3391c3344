"""An experiment to the runs it lacks, and those through a launcher to their records. Loads no torch by itself."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claim_shape import Count, ProcessShape, ShortText
from metaformer_ablate.records.claims import Claims, Clock, Progress
from metaformer_ablate.records.record import Record, StoreError
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.settings.typed_files import first_problem, read_json
from metaformer_ablate.sweep.jobs import Job
from metaformer_ablate.sweep.launchers.base import Launcher, NoWorkers
from metaformer_ablate.system.cache import write_cache
from metaformer_ablate.system.processes import is_gone, of_this_process
from metaformer_ablate.system.signals import Interrupted, StopRequest

# How long runs may take to save their place when a sweep is stopped.
STOP_SECONDS = 20.0


# A sign of a sweep that was not renewed for so long is taken for a dead one's; a live sweep writes it again.
SIGN_SECONDS = 86_400.0


class ProgressListener:
    """What a sweep tells whoever watches. Does nothing by itself. `at_once` is how many runs train at a time."""

    at_once = 1

    def begin(self, jobs: Sequence[Job], seconds: float | None = None) -> None: ...

    def start(self, job: Job) -> None: ...

    def progress(self, job: Job, progress: Progress) -> None: ...

    def finish(self, job: Job, record: Record) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Limits:
    """When a sweep gives up: on beginning runs, on a run that makes no step, and on a run whose workers die."""

    hours: float | None = None
    stall_seconds: float = 1800.0
    attempts: int = 3


@dataclass
class Sweep:
    """Jobs on their way through a launcher to records. Holds what is under way, not what is finished."""

    jobs: Sequence[Job]
    request: Callable[[Job], RunRequest]
    launcher: Launcher
    store: Store
    listener: ProgressListener = field(default_factory=ProgressListener)
    limits: Limits = field(default_factory=Limits)
    stop: StopRequest = field(default_factory=StopRequest)
    clock: Clock = time

    def __post_init__(self) -> None:
        self.claims = Claims(self.store.path, clock=self.clock)
        self.begun = self.clock.monotonic()
        self.waiting = deque(self.jobs)
        self.running: dict[str, _Running] = {}
        self.elsewhere: dict[str, Job] = {}
        self.attempts: dict[str, int] = {}
        self.finished = self.failed = 0
        self._reached: dict[str, tuple[float, float]] = {}  # run: how far it and its source were when it was stopped
        self._dead: dict[str, str] = {}  # run: token of the owner that was seen to die
        self._last_poll = 0.0
        self._begun_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._sign = self.claims.folder / f"sweep-{socket.gethostname()}-{os.getpid()}.json"
        self.launcher.report = self._progress

    def run(self) -> str | None:
        """Trains the jobs; every record is on disk when this returns. Why it ended with jobs left, or None.

        A run that another sweep trains is waited for, and taken over where its owner dies. Raises Interrupted once
        the stop is asked for and what is under way has saved its place; RequestError and StoreError as runs meet them.
        """
        try:
            with self.stop.polling():
                return self._run()
        except NoWorkers as error:
            return str(error)
        finally:
            self._sign.unlink(missing_ok=True)

    def _run(self) -> str | None:
        active_sweeps(self.store)  # removes the signs of dead ones
        while self.waiting or self.running or self.elsewhere:
            if self.stop():
                self._stop()
            late = self.limits.hours is not None and self.clock.monotonic() - self.begun >= self.limits.hours * 3600
            if late and not self.running:
                return f"--max-hours {self.limits.hours:g} is over"
            while self.waiting and len(self.running) < self.launcher.capacity and not late:
                self._submit(self.waiting.popleft())
                if self.launcher.capacity == 1:
                    break  # a launcher that trains in this process has ended it by now
            for ended in self.launcher.wait(0.1 if self.running else 0.0):
                self._handle_result(ended)
            if not self.running and not self.waiting and self.elsewhere:
                self.clock.sleep(0.5)
            self._poll_claims()
        return None

    def _submit(self, job: Job) -> None:
        run_id = job.spec.run_id
        self.running[run_id] = _Running(job, self.clock.monotonic())
        if not self.launcher.queues:
            self.listener.start(job)
        self.launcher.submit(replace(self.request(job), dead_claim=self._dead.pop(run_id, None)))

    def _progress(self, run_id: str, progress: Progress) -> None:
        running = self.running[run_id]
        running.progress, running.since = progress, self.clock.monotonic()
        self.listener.progress(running.job, progress)

    def _handle_result(self, ended: RunResult) -> None:
        running = self.running.pop(ended.run_id)
        job = running.job
        if ended.outcome == "recorded":
            self._finish(job)
        elif ended.outcome == "busy":
            self.elsewhere[ended.run_id] = job
            holder = self.claims.current(ended.run_id)
            self.listener.note(f"{job.name} is trained by {holder.host if holder else 'another sweep'}; waiting for it")
        elif ended.outcome == "died":
            self._died(job, ended.text)
        elif ended.outcome == "unstarted":
            self.listener.note(f"{job.name}: {ended.text}; it is tried again")
            self.waiting.append(job)
        elif ended.outcome == "request":
            raise RequestError(ended.text)
        elif ended.outcome == "store":
            raise StoreError(ended.text)
        elif self.stop():
            self.waiting.append(job)  # the sweep ends as one that has something left
        else:  # somebody else told its worker to stop, or its node was taken away
            at = running.progress
            reached = (at.share, at.source_share) if at else (0.0, 0.0)
            if reached <= self._reached.get(ended.run_id, (0.0, 0.0)):  # it would never end
                self._died(job, ended.text)
                return
            self._reached[ended.run_id] = reached
            self._requeue(job, ended.text)

    def _finish(self, job: Job) -> None:
        record = self.store.read(job.spec.run_id)
        if record is None:
            raise StoreError(self.store.problems.get(job.spec.run_id, f"{self.store.path}: a record has gone"))
        self.finished += 1
        self.failed += record.status == "failed"
        self.listener.finish(job, record)

    def _died(self, job: Job, why: str) -> None:
        run_id = job.spec.run_id
        record = self.store.read(run_id)
        if record is not None and record.checksum != job.replaces:  # it died when its work was done
            self._finish(job)
            return
        self.attempts[run_id] = self.attempts.get(run_id, 0) + 1
        if self.attempts[run_id] < self.limits.attempts:
            self._requeue(job, why)
            return
        from metaformer_ablate.runs.outcome import failed_record

        reason = f"given up after {self.limits.attempts} attempts: {why}; try a smaller train.batch_size or --workers 1"
        self.store.set_aside(run_id)
        self.store.write(job.spec, failed_record(job.spec, reason), [], None, reason)
        self._finish(job)

    def _requeue(self, job: Job, why: str) -> None:
        self.listener.note(f"{job.name}: {why}; it goes on from its last checkpoint")
        self.waiting.append(job)

    def _poll_claims(self) -> None:
        """At what is under way, by its claims: how far it is, whether it hangs, whether its owner is still there."""
        if self.clock.monotonic() - self._last_poll < 0.5:
            return
        self._last_poll = now = self.clock.monotonic()
        counts = {"finished": self.finished, "failed": self.failed, "running": len(self.running)}
        counts |= {"left": len(self.waiting) + len(self.elsewhere)}
        write_cache(self._sign, json.dumps(of_this_process() | {"since": self._begun_at, **counts}))
        tops = self.claims.all_current() if self.running or self.elsewhere else {}
        for run_id, running in self.running.items():
            holder = tops.get(run_id)
            if holder is not None and holder.token != running.token:  # before that it may have waited for a node
                if self.launcher.queues:
                    self.listener.start(running.job)
                running.token, running.since = holder.token, now
            if holder is not None and holder.progress is not None and holder.progress != running.progress:
                self._progress(run_id, holder.progress)
            elif now - running.since > self.limits.stall_seconds:
                running.since = now
                self.launcher.kill(run_id)
        for run_id, job in list(self.elsewhere.items()):
            holder = tops.get(run_id)
            if holder is not None and not self.claims.is_dead(holder):
                continue
            del self.elsewhere[run_id]
            record = self.store.read(run_id)
            if record is not None and record.checksum != job.replaces:
                self._finish(job)
                continue
            self.waiting.append(job)
            if holder is not None:
                self._dead[run_id] = holder.token

    def _stop(self) -> None:
        """Gives what is under way a while to save its place."""
        self.launcher.stop()
        if self.running:
            self.listener.note("stopping: the runs under way save their place; Ctrl-C once more ends at once")
        until = self.clock.monotonic() + STOP_SECONDS
        while self.running and self.clock.monotonic() < until:
            for ended in self.launcher.wait(0.2):
                if ended.outcome == "recorded":
                    self._finish(self.running[ended.run_id].job)
                self.running.pop(ended.run_id)
        raise Interrupted(self.stop.number or 0)


def active_sweeps(store: Store) -> list[dict[str, Any]]:
    """What the sweeps over a results folder say of themselves; the signs of dead ones are removed.

    A sweep is dead when its process is gone from this machine, or when it has not renewed its sign for SIGN_SECONDS: on
    another machine nothing else tells. What is no sign is left out, and `store.problems` names it.
    """
    found = []
    for path in sorted(Claims(store.path).folder.glob("sweep-*.json")):
        try:
            sign = SignShape.model_validate(read_json(path)).model_dump()
            old = time.time() - path.stat().st_mtime > SIGN_SECONDS
            if old or is_gone(sign.pop("machine"), sign["pid"], sign.pop("started")):
                path.unlink(missing_ok=True)
                continue
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            store.problems[path.name] = f"{path}: not the sign of a sweep: {first_problem(error)}; left out"
            continue
        sign.pop("parent")
        found.append(sign)
    return found


class SignShape(ProcessShape):
    """The file by which a sweep says that it is at work."""

    since: ShortText
    finished: Count
    failed: Count
    running: Count
    left: Count


@dataclass
class _Running:
    job: Job
    since: float  # of the last sign of progress
    progress: Progress | None = None
    token: str | None = None  # of the claim that was seen on it
