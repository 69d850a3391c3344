"""The real scheduler (`metaformer_ablate.sweep.scheduler`) over a cluster of simulated time.

`Sweep` schedules, resubmits, gives up and takes over as it always does, with its claims and records in a real folder.
What is simulated is behind the `Launcher` protocol: nodes with GPUs, nodes that fail and come back, runs that take so
many seconds of steps, begin with imports and stop for checkpoints. No wall clock is read: days pass in seconds.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from unittest import mock
from uuid import uuid4

import numpy as np

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import LEASE_SECONDS, ClaimOwner, Claims, Progress
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.jobs import Job, make_request, plan_jobs
from metaformer_ablate.sweep.launchers.slurm import MOST_JOBS
from metaformer_ablate.sweep.scheduler import Limits, ProgressListener, Sweep
from metaformer_ablate.tasks.registry import get_task

# How far time goes at once while nothing ends. Below what a run may take for a step (`Limits.stall_seconds`).
TICK = 1500.0
# The same while the sweep watches the claim of an owner that may be dead.
WATCH = 5.0


@dataclass(frozen=True)
class Cluster:
    """Nodes of `gpus_per_node` GPUs, `gpus` in all. Times in seconds."""

    gpus: int
    gpus_per_node: int = 8
    failures: float = math.inf  # mean time between two failures of one node, exponential
    repair: float = 3600.0  # that a node is away after one
    notice: float = 30.0  # until it is noticed that a node has gone
    requeue: float = 120.0  # until a queue (Slurm) begins a lost job again
    queues: bool = False  # as Slurm does: the sweep submits all it may, and a lost job is begun again without it
    seed: int = 0


@dataclass(frozen=True)
class Timing:
    """What a run takes, in seconds."""

    work: float  # steps and evaluations
    start: float = 0.0  # of each attempt before its first step: imports, the model, compilation
    interval: float = math.inf  # of work between two checkpoints
    save: float = 0.0  # that a checkpoint stops the run for

    def seconds(self, work: float) -> float:
        """Of an attempt that does so much work to the end."""
        return self.start + work + self.save * max(0, math.ceil(work / self.interval) - 1)

    def saved(self, elapsed: float) -> tuple[float, int]:
        """The work that an attempt has saved when it is lost after `elapsed` seconds, and the checkpoints it wrote."""
        if math.isinf(self.interval):
            return 0.0, 0
        written = int(max(0.0, elapsed - self.start) // (self.interval + self.save))
        return written * self.interval, written


class Time:
    """A clock that stands still until somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


@dataclass(eq=False)
class _Attempt:
    request: RunRequest
    timing: Timing
    begun: float
    places: list[int]  # the nodes
    generation: int  # of its claim
    over: bool = False


class Simulated:
    """A launcher (the protocol of `metaformer_ablate.sweep.launchers.base`) of a simulated cluster.

    `timing` says what a run takes, `deaths` after how many seconds an attempt of it dies: (run id, number from 0).
    A lost run is `stopped`, as Ray tells of it; its claim stays, and the sweep waits for its lease as with any owner
    on another machine. In a cluster with a queue the job is begun again by that, and knows that its former owner died.
    """

    report: Callable[[str, Progress], None]

    def __init__(
        self,
        cluster: Cluster,
        specs: Sequence[RunSpec],
        timing: Callable[[RunRequest], Timing],
        store: Store,
        deaths: Callable[[str, int], float] = lambda run_id, attempt: math.inf,
    ):
        self.cluster, self.queues = cluster, cluster.queues
        self.time, self.spent = Time(), Counter[str]()  # GPU seconds, by what for
        self.lost_runs = self.node_failures = 0
        self._timing, self._deaths, self._store = timing, deaths, store
        self._claims = Claims(store.path, clock=self.time)
        full, rest = divmod(cluster.gpus, cluster.gpus_per_node)
        self._size = [cluster.gpus_per_node] * full + ([rest] if rest else [])
        self._free = list(self._size)
        self._down: set[int] = set()
        self._devices = max(spec.train.devices for spec in specs)
        self._nodes = max(spec.train.nodes for spec in specs)
        self._queue: deque[RunRequest] = deque()
        self._running: dict[str, _Attempt] = {}
        self._done: dict[str, float] = {}  # run: seconds of its work that are saved
        self._begun: Counter[str] = Counter()  # run: attempts
        self._ended: list[RunResult] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._watched = 0.0  # until when the sweep may be looking for the death of an owner
        self._chance = random.Random(cluster.seed)
        if not self.capacity:
            raise RequestError(
                f"a run takes {self._devices} GPUs of {self._nodes} nodes; the cluster has {cluster.gpus} GPUs, "
                f"{cluster.gpus_per_node} a node"
            )
        for node in range(len(self._size)):
            self._next_failure(node)

    # The launcher

    @property
    def capacity(self) -> int:
        if self.queues:
            return MOST_JOBS
        up = [size for node, size in enumerate(self._size) if node not in self._down]
        return sum(size // self._devices for size in up) // self._nodes

    def submit(self, order: RunRequest) -> None:
        self._queue.append(order)

    def wait(self, seconds: float) -> list[RunResult]:
        """As in the protocol, but time passes in larger steps than the `seconds` that a sweep waits for, except while
        it watches somebody else's claim."""
        self._fill()
        step = max(seconds, TICK)
        if not (self._queue or self._running):  # the sweep has nothing to send, or no node is up to take it
            step = seconds if self.capacity else self._events[0][0] - self.time.now
        elif self.time.now < self._watched:
            step = max(seconds, WATCH)
        until = self.time.now + step
        while not self._ended and self._events and self._events[0][0] <= until:
            at, _, happen = heappop(self._events)
            self.time.now = max(self.time.now, at)
            happen()
            self._fill()
        if not self._ended:
            self.time.now = max(self.time.now, until)
        for attempt in self._running.values():
            self._tell(attempt)
        ended, self._ended = self._ended, []
        return ended

    def kill(self, run_id: str) -> None:
        if run_id in self._running:
            attempt = self._running[run_id]
            self._lose(attempt)
            self._ended.append(RunResult(run_id, "died", "it made no step for too long and was killed"))

    def stop(self) -> None: ...

    def close(self) -> None: ...

    # Runs

    def _at(self, seconds: float, happen: Callable[[], None]) -> None:
        """Has something happen so many seconds from now."""
        self._number += 1
        if math.isfinite(seconds):
            heappush(self._events, (self.time.now + seconds, self._number, happen))

    def _fill(self) -> None:
        """Begins what is first in the queue while there is room for it."""
        while self._queue and (places := self._room(self._queue[0])) is not None:
            self._begin(self._queue.popleft(), places)

    def _room(self, order: RunRequest) -> list[int] | None:
        devices, nodes = order.spec["train"]["devices"], order.spec["train"]["nodes"]
        fitting = [n for n, free in enumerate(self._free) if free >= devices and n not in self._down][:nodes]
        return fitting if len(fitting) == nodes else None

    def _begin(self, order: RunRequest, places: list[int]) -> None:
        run_id = order.run_id
        top = self._claims.current(run_id)
        if top is not None and top.token != order.dead_claim:  # a new process cannot know that its owner is dead
            self._watched = self.time.now + 2 * LEASE_SECONDS
            self._ended.append(RunResult(run_id, "busy"))
            return
        generation = 0 if top is None else top.generation + 1
        timing = self._timing(order)
        attempt = _Attempt(order, timing, self.time.now, places, generation)
        hold(self._claims, ClaimOwner(run_id, generation, uuid4().hex, 0, f"node{places[0]}", "simulated", 0, 0, ""))
        if top is not None:
            self._claims.forget(run_id, top.generation)
        for node in places:
            self._free[node] -= order.spec["train"]["devices"]
        self._running[run_id] = attempt
        seconds = timing.seconds(timing.work - self._done.get(run_id, 0.0))
        death = self._deaths(run_id, self._begun[run_id])
        self._begun[run_id] += 1
        if death < seconds:
            self._at(death, partial(self._die, attempt))
        else:
            self._at(seconds, partial(self._finish, attempt))

    def _tell(self, attempt: _Attempt) -> None:
        """How far an attempt is, once it makes steps."""
        timing, run_id = attempt.timing, attempt.request.run_id
        trained = self.time.now - attempt.begun - timing.start
        if trained > 0:
            saved, written = timing.saved(self.time.now - attempt.begun)
            work = self._done.get(run_id, 0.0) + saved + min(trained - saved - written * timing.save, timing.interval)
            self.report(run_id, Progress(0, 1, work / timing.work, None, None, 0.0))

    def _end(self, attempt: _Attempt) -> tuple[int, float]:
        """Its GPUs, which are free again, and how many seconds it had them."""
        attempt.over = True
        del self._running[attempt.request.run_id]
        for node in attempt.places:
            self._free[node] += attempt.request.spec["train"]["devices"]
        gpus = attempt.request.spec["train"]["devices"] * len(attempt.places)
        elapsed = self.time.now - attempt.begun
        self.spent["starting"] += gpus * min(elapsed, attempt.timing.start)
        return gpus, elapsed

    def _finish(self, attempt: _Attempt) -> None:
        if attempt.over:
            return
        run_id, timing = attempt.request.run_id, attempt.timing
        gpus, elapsed = self._end(attempt)
        work = timing.work - self._done.get(run_id, 0.0)
        self.spent["work"] += gpus * work
        self.spent["saving"] += gpus * (elapsed - timing.start - work)
        write_record(self._store, RunSpec.model_validate(attempt.request.spec), timing.work)
        self._claims.forget(run_id, attempt.generation)
        self._ended.append(RunResult(run_id, "recorded"))

    def _lose(self, attempt: _Attempt) -> None:
        """It goes on from its last checkpoint, if at all. Its claim stays."""
        self._tell(attempt)
        gpus, elapsed = self._end(attempt)
        saved, written = attempt.timing.saved(elapsed)
        self._done[attempt.request.run_id] = self._done.get(attempt.request.run_id, 0.0) + saved
        self.spent["work"] += gpus * saved
        self.spent["saving"] += gpus * written * attempt.timing.save
        lost = elapsed - min(elapsed, attempt.timing.start) - saved - written * attempt.timing.save
        self.spent["lost"] += gpus * lost
        self.lost_runs += 1

    def _die(self, attempt: _Attempt) -> None:
        """Its process alone: the node sees that it is gone."""
        if not attempt.over:
            self._lose(attempt)
            self._claims.forget(attempt.request.run_id, attempt.generation)
            self._ended.append(RunResult(attempt.request.run_id, "died", "its worker was killed by SIGKILL"))

    # Nodes

    def _next_failure(self, node: int) -> None:
        if math.isfinite(self.cluster.failures):
            self._at(self._chance.expovariate(1 / self.cluster.failures), partial(self._fail, node))

    def _fail(self, node: int) -> None:
        self.node_failures += 1
        self._down.add(node)
        for attempt in [attempt for attempt in self._running.values() if node in attempt.places]:
            self._lose(attempt)
            if self.queues:
                self._at(self.cluster.requeue, partial(self._again, attempt))
            else:
                lost = RunResult(attempt.request.run_id, "stopped", "its node was lost")
                self._at(self.cluster.notice, partial(self._notice, lost))
        self._at(self.cluster.repair, partial(self._mend, node))

    def _notice(self, lost: RunResult) -> None:
        self._ended.append(lost)

    def _again(self, attempt: _Attempt) -> None:
        """A job that the queue begins again: its owner's file tells it which claim was its own."""
        self._claims.forget(attempt.request.run_id, attempt.generation)
        self._queue.append(attempt.request)

    def _mend(self, node: int) -> None:
        self._down.discard(node)
        self._next_failure(node)


def hold(claims: Claims, holder: ClaimOwner) -> None:
    """Puts a claim where an owner on another machine would have put it. Nobody beats it."""
    claims.folder.mkdir(parents=True, exist_ok=True)
    text = {key: value for key, value in asdict(holder).items() if key not in ("run_id", "generation")}
    (claims.folder / f"{holder.run_id}.{holder.generation}").write_text(json.dumps(text))


def write_record(store: Store, spec: RunSpec, seconds: float) -> Record:
    """A record that nobody trained, as small as the store takes it."""
    line = {**dict.fromkeys(get_task().history_columns, 0.0), "epoch": 1, "seconds": seconds}
    data = {
        "status": "ok",
        "reason": None,
        "metrics": {"top1": 0.0, "top5": 0.0, "loss": 0.0},
        **dict.fromkeys(("params", "frozen_params", "macs", "images_seen"), 0),
        "seconds": seconds,
        **dict.fromkeys(("device", "data_fingerprint")),
        "versions": {},
        "git": {},
    }
    predictions = {name: np.zeros(1, np.uint8) for name in ("label", "predicted")}
    predictions["confidence"] = np.zeros(1, np.float32)
    return store.write(spec, data, [line], predictions)


@dataclass
class Outcome(ProgressListener):
    """What came of a simulated sweep; times in seconds since its beginning."""

    launcher: Simulated
    begun: list[tuple[float, Job]] = field(default_factory=list)  # each time the sweep begins a run
    ended: dict[str, float] = field(default_factory=dict)  # by run id, in order
    jobs: dict[str, Job] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def start(self, job: Job) -> None:
        self.begun.append((self.launcher.time.now, job))

    def finish(self, job: Job, record: Record) -> None:
        if job.spec.run_id in self.ended:
            raise AssertionError(f"{job.name} has ended twice")
        self.ended[job.spec.run_id] = self.launcher.time.now
        self.jobs[job.spec.run_id] = job
        if record.status == "failed":
            self.failed.append(job.name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def makespan(self) -> float:
        return max(self.ended.values())

    @property
    def last(self) -> str:
        """The name of the run that ended last."""
        return self.jobs[max(self.ended, key=lambda run_id: self.ended[run_id])].name

    @property
    def utilisation(self) -> float:
        """The share of all GPU seconds until the last run ended in which steps were made that count."""
        return self.launcher.spent["work"] / (self.launcher.cluster.gpus * self.makespan)


def simulate(
    plans: Sequence[Plan],
    seeds: Sequence[int],
    cluster: Cluster,
    timing: Callable[[RunRequest], Timing],
    folder: Path,
    limits: Limits | None = None,
    deaths: Callable[[str, int], float] = lambda run_id, attempt: math.inf,
) -> Outcome:
    """Sends every run that the plans lack in a results folder through the real sweep, on a simulated cluster."""
    store, data = Store(folder), DataFolder.choose(None)
    jobs, _ = plan_jobs(plans, seeds, store, data)
    launcher = Simulated(cluster, [job.spec for job in jobs], timing, store, deaths)
    outcome = Outcome(launcher)
    order = partial(make_request, store=store, folder=data, device="cuda")
    sweep = Sweep(jobs, order, launcher, store, outcome, limits or Limits(), clock=launcher.time)
    with mock.patch("os.fsync"):  # nobody needs these records after a power failure
        sweep.run()
    return outcome
