"""An experiment to the runs it lacks, and those through a launcher to their records. Loads no torch by itself."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median
from typing import Any

from metaformer_ablate.claims import Claims, Clock, Progress, is_gone, of_this_process
from metaformer_ablate.data.files import DataFolder, write_quietly
from metaformer_ablate.experiment import Plan
from metaformer_ablate.launchers import Ended, Launcher, Order
from metaformer_ablate.records import Record, Store, StoreError
from metaformer_ablate.signals import Interrupted, Stop
from metaformer_ablate.spec import RunSpec
from metaformer_ablate.yaml_reader import RequestError

# How long runs may take to save their place when a sweep is stopped.
STOP_SECONDS = 20.0

# Without --seeds, records of these seeds are found; others have to be asked for.
SEEDS_LOOKED_UP = 10_000

# Where no record tells how long a run takes: multiply-adds a second in training, forward and backward together, and
# seconds a step that no size explains. Rough, from the small recipes on one thread of a server CPU.
ASSUMED_MACS_PER_SECOND = 3e9
ASSUMED_SECONDS_PER_STEP = 0.01


@dataclass(frozen=True)
class RunState:
    """A planned run as it stands: missing, running, ok, diverged, failed or stale."""

    run_id: str
    seed: int
    status: str
    record: Record | None
    pace: float | None = None  # seconds an image and multiply-add, where `jobs_of` left the record out

    @property
    def top1(self) -> float | None:
        return self.record.top1 if self.record is not None and self.status == "ok" else None


def states_of(
    spec: RunSpec, seeds: Iterable[int], store: Store, fingerprint: str | None, held: Container[str] = ()
) -> list[RunState]:
    """Looks a row's runs up, one a seed. A record of other data than today's is stale: shown, not reused.

    `held` are the runs that somebody trains (`Claims.held`). Costs a hash a seed and not a resolved spec.
    """
    before, after = _canonical_around_seed(spec)
    return [_look_up(_run_id(before, seed, after), seed, store, fingerprint, held) for seed in seeds]


def _look_up(run_id: str, seed: int, store: Store, fingerprint: str | None, held: Container[str]) -> RunState:
    record = store.read(run_id)
    status = record.status if record is not None else "running" if run_id in held else "missing"
    if record is not None and fingerprint and record.data["data_fingerprint"] not in (None, fingerprint):
        status = "stale"
    return RunState(run_id, seed, status, record)


def seeds_with_records(plan: Plan, store: Store) -> tuple[int, ...]:
    """The seeds below SEEDS_LOOKED_UP that any row of a plan has a run folder for; seed 0 where there is none."""
    ids = set(store.ids())
    found: set[int] = set()
    for spec in plan.specs.values() if ids else ():
        # The canonical JSON of two seeds differs in the number alone, so ids cost one hash each.
        before, after = _canonical_around_seed(spec)
        for seed in range(SEEDS_LOOKED_UP):
            if _run_id(before, seed, after) in ids:
                found.add(seed)
    return tuple(sorted(found)) or (0,)


def none_of(plan: Plan, store: Store, seeds: Sequence[int] | None = None) -> str | None:
    """A hint where there are runs and none of them is of a plan: easily its recipe or overrides were left out."""
    ids = set(store.ids())
    chosen = seeds if seeds is not None else seeds_with_records(plan, store)
    if not ids or any(spec.with_seed(seed).run_id in ids for spec in plan.specs.values() for seed in chosen):
        return None
    settings = " ".join([plan.recipe.name, *plan.overrides])
    return (
        f"none of the {len(ids)} runs in {store.path} is of {plan.experiment.name} under {settings}; "
        f"give the recipe, overrides and seeds that `ablate run` was given"
    )


def _canonical_around_seed(spec: RunSpec) -> tuple[bytes, bytes]:
    text = json.dumps(spec.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    before, _, after = text.rpartition(f'"seed":{spec.seed},')
    return f'{before}"seed":'.encode(), f",{after}".encode()


def _run_id(before: bytes, seed: int, after: bytes) -> str:
    return hashlib.sha256(b"%s%d%s" % (before, seed, after)).hexdigest()[:12]


@dataclass(frozen=True)
class Job:
    """A run to be trained, and the experiments and rows that show it."""

    spec: RunSpec
    rows: tuple[str, ...]  # "pooling_size/pool3"
    replaces: str | None = None  # checksum of the record, failed or stale, that it is to replace

    @property
    def name(self) -> str:
        return f"{self.rows[0]} seed {self.spec.seed}"


def jobs_of(
    plans: Sequence[Plan], seeds: Sequence[int], store: Store, folder: DataFolder, retry_failed: bool = False
) -> tuple[list[Job], list[RunState]]:
    """What is left to train, seed by seed, each run once however many rows show it; and the state of every run.

    The states hold no records: a plan of thousands of runs keeps thousands of lines, not what they learnt.
    """
    rows: dict[str, list[str]] = {}
    specs: dict[str, RunSpec] = {}  # each once, by the id of one seed
    for plan in plans:
        for row, spec in plan.specs.items():
            rows.setdefault(spec.run_id, []).append(f"{plan.experiment.name}/{row}")
            specs.setdefault(spec.run_id, spec)
    held = Claims(store.path).held()
    data = {(spec.data.name, spec.data.reader) for spec in specs.values()}
    fingerprints = {name: folder.fingerprint(name, reader) for name, reader in data}
    wanted = {"missing", "running", "stale", *(["failed"] if retry_failed else [])}
    columns: list[list[tuple[RunState, Job | None]]] = []
    for key, spec in specs.items():
        column: list[tuple[RunState, Job | None]] = []
        for state in states_of(spec, seeds, store, fingerprints[spec.data.name], held):
            job = None
            if state.status in wanted:
                job = Job(spec.with_seed(state.seed), tuple(rows[key]), state.record.checksum if state.record else None)
            column.append((replace(state, record=None, pace=_pace(state.record)), job))
        columns.append(column)
    in_turn = [pair for pairs in zip(*columns, strict=True) for pair in pairs]
    return [job for _, job in in_turn if job is not None], [state for state, _ in in_turn]


def _pace(record: Record | None) -> float | None:
    """Seconds an image and multiply-add of a run that was trained."""
    if record is None or not record.data.get("images_seen") or not record.data["macs"]:
        return None
    return record.data["seconds"] / (record.data["images_seen"] * record.data["macs"])


def estimate_seconds(jobs: Iterable[Job], states: Iterable[RunState], macs: Callable[[RunSpec], int]) -> float:
    """How long the jobs will take one after another, from the records of the same plan or else from a rough rate."""
    rates = [state.pace for state in states if state.pace is not None]
    total = 0.0
    for job in jobs:
        train = job.spec.train
        images = job.spec.data.split_sizes()[0] * (train.epochs + train.cooldown_epochs)
        if rates:
            total += median(rates) * images * macs(job.spec)
        else:
            total += 3 * images * macs(job.spec) / ASSUMED_MACS_PER_SECOND / train.threads
            total += ASSUMED_SECONDS_PER_STEP * images / train.batch_size
    return total


def order_of(
    job: Job, store: Store, folder: DataFolder, device: str, wandb: dict[str, Any] | None = None, **handling: Any
) -> Order:
    """The order for a job. `handling` is what of `Order` the command line decides, `wandb` is of `tracking.settle`."""
    return Order(
        spec=job.spec.with_execution(),
        results=str(store.path.resolve()),
        data=str(folder.path.resolve()) if folder.given else None,
        device=device,
        name=job.name,
        run_id=job.spec.run_id,
        replaces=job.replaces,
        wandb=None if wandb is None else {**wandb, "rows": list(job.rows)},
        **handling,
    )


class Listener:
    """What a sweep tells whoever watches. Does nothing by itself."""

    def begin(self, jobs: Sequence[Job], seconds: float) -> None: ...

    def start(self, job: Job) -> None: ...

    def progress(self, job: Job, progress: Progress) -> None: ...

    def finish(self, job: Job, record: Record) -> None: ...

    def note(self, text: str) -> None: ...


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
    order: Callable[[Job], Order]
    launcher: Launcher
    store: Store
    listener: Listener = field(default_factory=Listener)
    limits: Limits = field(default_factory=Limits)
    stop: Stop = field(default_factory=Stop)
    clock: Clock = time

    def __post_init__(self) -> None:
        self.claims = Claims(self.store.path, clock=self.clock)
        self.begun = self.clock.monotonic()
        self.waiting = deque(self.jobs)
        self.running: dict[str, _Running] = {}
        self.elsewhere: dict[str, Job] = {}
        self.attempts: dict[str, int] = {}
        self.finished = self.failed = 0
        self._reached: dict[str, float] = {}  # run: how far it was when it was stopped
        self._dead: dict[str, str] = {}  # run: token of the owner that was seen to die
        self._looked = 0.0
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
        finally:
            self._sign.unlink(missing_ok=True)

    def _run(self) -> str | None:
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
                self._take(ended)
            if not self.running and not self.waiting and self.elsewhere:
                self.clock.sleep(0.5)
            self._look()
        return None

    def _submit(self, job: Job) -> None:
        run_id = job.spec.run_id
        self.running[run_id] = _Running(job, self.clock.monotonic())
        if not self.launcher.queues:
            self.listener.start(job)
        self.launcher.submit(replace(self.order(job), dead=self._dead.pop(run_id, None)))

    def _progress(self, run_id: str, progress: Progress) -> None:
        running = self.running[run_id]
        running.progress, running.since = progress, self.clock.monotonic()
        self.listener.progress(running.job, progress)

    def _take(self, ended: Ended) -> None:
        running = self.running.pop(ended.run_id)
        job = running.job
        if ended.outcome == "recorded":
            self._finish(job)
        elif ended.outcome == "busy":
            self.elsewhere[ended.run_id] = job
            holder = self.claims.top(ended.run_id)
            self.listener.note(f"{job.name} is trained by {holder.host if holder else 'another sweep'}; waiting for it")
        elif ended.outcome == "died":
            self._died(job, ended.text)
        elif ended.outcome == "request":
            raise RequestError(ended.text)
        elif ended.outcome == "store":
            raise StoreError(ended.text)
        elif self.stop():
            self.waiting.append(job)  # the sweep ends as one that has something left
        else:  # somebody else told its worker to stop, or its node was taken away
            share = running.progress.share if running.progress else 0.0
            if share <= self._reached.get(ended.run_id, 0.0):  # it would never end
                self._died(job, ended.text)
                return
            self._reached[ended.run_id] = share
            self._again(job, ended.text)

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
            self._again(job, why)
            return
        from metaformer_ablate.run import failed_record

        reason = f"given up after {self.limits.attempts} attempts: {why}; try a smaller train.batch_size or --workers 1"
        self.store.set_aside(run_id)
        self.store.write(job.spec, failed_record(job.spec, reason), [], None, reason)
        self._finish(job)

    def _again(self, job: Job, why: str) -> None:
        self.listener.note(f"{job.name}: {why}; it goes on from its last checkpoint")
        self.waiting.append(job)

    def _look(self) -> None:
        """At what is under way, by its claims: how far it is, whether it hangs, whether its owner is still there."""
        if self.clock.monotonic() - self._looked < 0.5:
            return
        self._looked = now = self.clock.monotonic()
        counts = {"finished": self.finished, "failed": self.failed, "running": len(self.running)}
        counts |= {"left": len(self.waiting) + len(self.elsewhere)}
        write_quietly(self._sign, json.dumps(of_this_process() | {"since": self._begun_at, **counts}))
        tops = self.claims.tops() if self.running or self.elsewhere else {}
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
        until = self.clock.monotonic() + STOP_SECONDS
        while self.running and self.clock.monotonic() < until:
            for ended in self.launcher.wait(0.2):
                if ended.outcome == "recorded":
                    self._finish(self.running[ended.run_id].job)
                self.running.pop(ended.run_id)
        raise Interrupted(self.stop.number or 0)


def sweeps_at_work(store: Store) -> list[dict[str, Any]]:
    """What the sweeps over a results folder say of themselves; the signs of dead ones are removed."""
    found = []
    for path in sorted(Claims(store.path).folder.glob("sweep-*.json")):
        try:
            sign = json.loads(path.read_text())
            if is_gone(sign.pop("machine"), sign["pid"], sign.pop("started")):
                path.unlink(missing_ok=True)
                continue
        except (OSError, ValueError, KeyError):
            continue
        sign.pop("parent")
        found.append(sign)
    return found


@dataclass
class _Running:
    job: Job
    since: float  # of the last sign of progress
    progress: Progress | None = None
    token: str | None = None  # of the claim that was seen on it


def as_dict(state: RunState) -> dict[str, Any]:
    return {"run_id": state.run_id, "seed": state.seed, "status": state.status}
