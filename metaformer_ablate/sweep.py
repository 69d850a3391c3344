"""An experiment to the runs it lacks, and those one after another to their records. Loads no torch by itself."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from metaformer_ablate.data.catalogue import split_sizes
from metaformer_ablate.data.files import DataFolder
from metaformer_ablate.experiment import Plan
from metaformer_ablate.records import Record, Store
from metaformer_ablate.spec import RunSpec

if TYPE_CHECKING:
    from metaformer_ablate.run import Progress, Runner

# Without --seeds, records of these seeds are found; others have to be asked for.
SEEDS_LOOKED_UP = 10_000

# Where no record tells how long a run takes: multiply-adds a second in training, forward and backward together, and
# seconds a step that no size explains. Rough, from the small recipes on one thread of a server CPU.
ASSUMED_MACS_PER_SECOND = 3e9
ASSUMED_SECONDS_PER_STEP = 0.01


@dataclass(frozen=True)
class RunState:
    """A planned run as it stands: missing, ok, diverged, failed or stale."""

    run_id: str
    seed: int
    status: str
    record: Record | None

    @property
    def top1(self) -> float | None:
        return self.record.top1 if self.record is not None and self.status == "ok" else None


def state_of(spec: RunSpec, store: Store, fingerprint: str | None) -> RunState:
    """Looks a planned run up. A record of other data than today's is stale: shown, not reused."""
    return _look_up(spec.run_id, spec.seed, store, fingerprint)


def states_of(spec: RunSpec, seeds: Iterable[int], store: Store, fingerprint: str | None) -> list[RunState]:
    """`state_of` for every seed of a spec, at one hash a seed instead of one resolved spec."""
    before, after = _canonical_around_seed(spec)
    return [_look_up(_run_id(before, seed, after), seed, store, fingerprint) for seed in seeds]


def _look_up(run_id: str, seed: int, store: Store, fingerprint: str | None) -> RunState:
    record = store.read(run_id)
    status = "missing" if record is None else record.status
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

    @property
    def name(self) -> str:
        return f"{self.rows[0]} seed {self.spec.seed}"


def jobs_of(
    plans: Sequence[Plan], seeds: Sequence[int], store: Store, folder: DataFolder, retry_failed: bool = False
) -> tuple[list[Job], list[RunState]]:
    """What is left to train, seed by seed, each run once however many rows show it; and the state of every run."""
    rows: dict[str, list[str]] = {}
    specs: dict[str, RunSpec] = {}
    for seed in seeds:
        for plan in plans:
            for row in plan.specs:
                spec = plan.spec(row, seed)
                rows.setdefault(spec.run_id, []).append(f"{plan.experiment.name}/{row}")
                specs[spec.run_id] = spec
    fingerprints: dict[str, str | None] = {}
    states, jobs = [], []
    for run_id, spec in specs.items():
        name = spec.data.name
        if name not in fingerprints:
            fingerprints[name] = folder.fingerprint(name)
        state = state_of(spec, store, fingerprints[name])
        states.append(state)
        if state.status in ("missing", "stale") or (retry_failed and state.status == "failed"):
            jobs.append(Job(spec, tuple(rows[run_id])))
    return jobs, states


def estimate_seconds(jobs: Iterable[Job], states: Iterable[RunState], macs: Callable[[RunSpec], int]) -> float:
    """How long the jobs will take one after another, from the records of the same plan or else from a rough rate."""
    rates = [
        state.record.data["seconds"] / (state.record.data["images_seen"] * state.record.data["macs"])
        for state in states
        if state.record is not None and state.record.data.get("images_seen") and state.record.data["macs"]
    ]
    total = 0.0
    for job in jobs:
        train = job.spec.train
        images = split_sizes(job.spec.data.name, job.spec.data.evaluate_on)[0] * (train.epochs + train.cooldown_epochs)
        if rates:
            total += median(rates) * images * macs(job.spec)
        else:
            total += 3 * images * macs(job.spec) / ASSUMED_MACS_PER_SECOND / train.threads
            total += ASSUMED_SECONDS_PER_STEP * images / train.batch_size
    return total


@dataclass
class Outcome:
    """What a sweep did. `stopped` says why it ended before its jobs did."""

    done: list[Record] = field(default_factory=list)
    left: list[Job] = field(default_factory=list)
    stopped: str | None = None

    @property
    def failed(self) -> list[Record]:
        return [record for record in self.done if record.status == "failed"]


class Listener:
    """What a sweep tells whoever watches. Does nothing by itself."""

    def begin(self, jobs: Sequence[Job], seconds: float) -> None: ...

    def start(self, job: Job) -> None: ...

    def progress(self, job: Job, progress: Progress) -> None: ...

    def finish(self, job: Job, record: Record) -> None: ...


def run_jobs(jobs: Sequence[Job], runner: Runner, listener: Listener, max_hours: float | None = None) -> Outcome:
    """Trains jobs one after another. Every record is on disk before the next run begins.

    With `max_hours` no run begins after that time; the one under way ends.
    """
    outcome = Outcome(left=list(jobs))
    begun = time.monotonic()
    for job in jobs:
        if max_hours is not None and time.monotonic() - begun >= max_hours * 3600:
            outcome.stopped = f"--max-hours {max_hours:g} is over"
            break
        listener.start(job)
        record = runner.run(job.spec, lambda progress, job=job: listener.progress(job, progress))  # type: ignore[misc]
        outcome.left.remove(job)
        outcome.done.append(record)
        listener.finish(job, record)
    return outcome


def as_dict(state: RunState) -> dict[str, Any]:
    return {"run_id": state.run_id, "seed": state.seed, "status": state.status}
