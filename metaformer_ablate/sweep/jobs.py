"""What is left to train, and how long it will take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import median
from typing import Any

from metaformer_ablate.cost.cost import cached_cost
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.claims import Claims
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.status import RunState, run_states
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest
from metaformer_ablate.runs.source import missing_sources
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.console import duration

# Where no record tells how long a run takes: multiply-adds per second in training, forward and backward together, and
# seconds per step that no size explains. Rough, from the small recipes on one thread of a server CPU.
ASSUMED_MACS_PER_SECOND = 3e9


ASSUMED_SECONDS_PER_STEP = 0.01


@dataclass(frozen=True)
class Job:
    """A run to be trained, and the experiments and rows that show it."""

    spec: RunSpec
    rows: tuple[str, ...]  # "pooling_size/pool3"
    replaces: str | None = None  # checksum of the record, failed or stale, that it is to replace
    first: tuple[RunSpec, ...] = ()  # runs that it starts from and that have no weights: trained before it

    @property
    def name(self) -> str:
        return f"{self.rows[0]} seed {self.spec.seed}"


Seeds = Sequence[int] | Mapping[str, Sequence[int]]  # of every row, or of each by its run id of seed 0


def plan_jobs(
    plans: Sequence[Plan], seeds: Seeds, store: Store, folder: DataFolder, retry_failed: bool = False
) -> tuple[list[Job], list[RunState]]:
    """What is left to train, seed by seed, each run once however many rows show it; and the state of every run.

    `seeds` are the same of all rows, or of each by its run id of seed 0. The states hold no records: a plan of
    thousands of runs keeps thousands of lines, not what they learnt.
    """
    rows: dict[str, list[str]] = {}
    specs: dict[str, RunSpec] = {}  # each once, by the id of one seed
    for plan in plans:
        for row, spec in plan.everything():
            rows.setdefault(spec.run_id, []).append(f"{plan.experiment.name}/{row}")
            specs.setdefault(spec.run_id, spec)
    held = Claims(store.path).held()
    data = {(spec.data.name, spec.data.reader) for spec in specs.values()}
    fingerprints = {name: folder.fingerprint(name, reader) for name, reader in data}
    wanted = {"missing", "running", "stale", *(["failed"] if retry_failed else [])}
    columns: list[list[tuple[RunState, Job | None]]] = []
    for key, spec in specs.items():
        column: list[tuple[RunState, Job | None]] = []
        own = seeds.get(key, ()) if isinstance(seeds, Mapping) else seeds
        for state in run_states(spec, own, store, fingerprints[spec.data.name], held):
            job = None
            if state.status in wanted:
                seeded = spec.with_seed(state.seed)
                replaces = state.record.checksum if state.record else None
                job = Job(seeded, tuple(rows[key]), replaces, missing_sources(seeded, store, folder))
            column.append((replace(state, record=None, pace=_pace(state.record)), job))
        columns.append(column)
    in_turn = [pair for pairs in zip_longest(*columns) for pair in pairs if pair is not None]
    return [job for _, job in in_turn if job is not None], [state for state, _ in in_turn]


def _pace(record: Record | None) -> float | None:
    """Seconds per image and multiply-add of a run that was trained."""
    if record is None or not record.data.get("images_seen") or not record.data["macs"]:
        return None
    return record.data["seconds"] / (record.data["images_seen"] * record.data["macs"])


def images_of(spec: RunSpec) -> int:
    """Images that a run is trained on, each as often as it is seen."""
    train = spec.train
    return train.all_steps(spec.data.split_sizes()[0] // train.batch_size) * train.batch_size


def work_of(jobs: Sequence[Job]) -> dict[str, float]:
    """How much each job is of a sweep, by run id: images, times the multiply-adds of one where all are known."""
    costs = {job.spec.run_id: cached_cost(job.spec) for job in jobs}
    known = {run_id: cost.macs for run_id, cost in costs.items() if cost is not None and cost.macs}
    each = known if len(known) == len(costs) else dict.fromkeys(costs, 1)
    return {job.spec.run_id: float(images_of(job.spec) * each[job.spec.run_id]) for job in jobs}


def measured_seconds(jobs: Sequence[Job], states: Sequence[RunState]) -> float | None:
    """How long the jobs will take one after another, by records of the same plan; None where none tells. No torch."""
    costs = {spec.run_id: cached_cost(spec) for job in jobs for spec in (*job.first, job.spec)}
    known = {run_id: cost.macs for run_id, cost in costs.items() if cost is not None}
    if not jobs or len(known) < len(costs) or all(state.pace is None for state in states):
        return None
    return estimate_seconds(jobs, states, lambda spec: known[spec.run_id])


def estimate_seconds(jobs: Iterable[Job], states: Iterable[RunState], macs: Callable[[RunSpec], int]) -> float:
    """How long the jobs will take one after another, from the records of the same plan or else from a rough rate."""
    rates = [state.pace for state in states if state.pace is not None]
    total = 0.0
    for job in jobs:
        for spec in (*job.first, job.spec):
            train, images = spec.train, images_of(spec)
            if rates and spec is job.spec:
                total += median(rates) * images * macs(spec)
            else:
                total += 3 * images * macs(spec) / ASSUMED_MACS_PER_SECOND / train.threads
                total += ASSUMED_SECONDS_PER_STEP * images / train.batch_size
    return total


def estimate_in_words(seconds: float, states: Iterable[RunState], at_once: int = 1) -> str:
    """`about 3 min with 2 at once`; no time where no record of the plan tells what a run takes: a guess is far off."""
    if not any(state.pace is not None for state in states):
        return "the time is known once one of them has been trained"
    return f"about {duration(seconds)}" + (f" with {at_once} at once" if at_once > 1 else "")


def make_request(
    job: Job, store: Store, folder: DataFolder, device: str, wandb: dict[str, Any] | None = None, **options: Any
) -> RunRequest:
    """The request for a job; `options` is what the command line decides of it, `wandb` is of `Tracking.resolve`."""
    return RunRequest(
        spec=job.spec.with_execution(),
        results=str(store.path.resolve()),
        data=str(folder.path.resolve()) if folder.given else None,
        device=device,
        name=job.name,
        run_id=job.spec.run_id,
        replaces=job.replaces,
        wandb=None if wandb is None else {**wandb, "rows": list(job.rows)},
        **options,
    )
