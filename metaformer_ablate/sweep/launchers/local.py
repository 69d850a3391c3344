"""Runs on this machine: in worker processes that live for many runs, or in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Progress
from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.launchers.base import Launcher, NoWorkers
from metaformer_ablate.sweep.launchers.worker_process import CLOSE_SECONDS, WorkerProcess
from metaformer_ablate.system.signals import StopRequest, isolate_children
from metaformer_ablate.tracking.tracking import Tracking

if TYPE_CHECKING:
    from metaformer_ablate.runs.worker import Worker


def launcher(
    specs: Sequence[RunSpec],
    device: str,
    stop: StopRequest,
    workers: int | None = None,
    tracking: Tracking | None = None,
    **other_options: Any,
) -> Launcher:
    """`workers` processes; by default as many as fit the GPUs with the devices that a run takes, or the cores with the
    threads. 0 trains in this process. Raises RequestError where a run cannot have its devices here."""
    devices = devices_of(device)
    each = max(spec.train.devices for spec in specs)
    for spec in specs:
        if spec.train.nodes > 1:
            raise RequestError(f"train.nodes is {spec.train.nodes}; more than one node needs --launcher slurm")
        check_hardware(spec, devices[0].partition(":")[0])
    if devices[0] != "cpu":
        if each > len(devices):
            names = f"the GPUs that --device {device} names"
            raise RequestError(f"train.devices is {each}; allowed: at most {len(devices)}, {names}")
        devices = [",".join(devices[i : i + each]) for i in range(0, len(devices) - each + 1, each)]
    if workers is None:
        threads = max(spec.train.threads for spec in specs)
        workers = len(devices) if devices[0] != "cpu" else max(1, cores() // (threads * each))
    workers = min(workers, len(specs))
    if workers == 0:
        return InProcess(devices[0], stop, tracking)
    return WorkerPool([devices[i % len(devices)] for i in range(workers)])


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_of(option: str) -> list[str]:
    """The devices that a --device names. Loads torch only where there may be a GPU."""
    if option == "cpu" or (option == "auto" and not Path("/proc/driver/nvidia").exists() and os.name == "posix"):
        return ["cpu"]
    import torch

    from metaformer_ablate.system.devices import choose_device

    if option in ("auto", "cuda") and torch.cuda.device_count() > 1:
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [str(choose_device(option))]


class InProcess:
    """One run after another in this process: for a debugger, and for tests."""

    capacity, queues = 1, False

    report: Callable[[str, Progress], None] = staticmethod(lambda run_id, progress: None)

    def __init__(self, device: str, stop: StopRequest, tracking: Tracking | None = None):
        self.device, self._stop, self._tracking = device, stop, tracking or Tracking()
        self._ended: list[RunResult] = []
        self._worker: Worker | None = None  # from the first run on, for it loads torch

    def submit(self, request: RunRequest) -> None:
        import torch

        from metaformer_ablate.runs.worker import Worker

        self._worker = self._worker or Worker(self._tracking)
        request = replace(request, device=self.device)
        report = partial(self.report, request.run_id)
        threads = torch.get_num_threads()  # a run sets its own; this process may have other work
        self._ended.append(self._worker.execute(request, self._stop, report))
        torch.set_num_threads(threads)

    def wait(self, seconds: float) -> list[RunResult]:
        ended, self._ended = self._ended, []
        return ended

    def kill(self, run_id: str) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


# A worker that has failed to start so often in a row is not started again.
MOST_STARTS = 3


class WorkerPool:
    """Worker processes that live for many runs, each with its device. One that dies is started again for the next run.

    A worker that does not start costs no run an attempt: after MOST_STARTS in a row it is given up, and when all are,
    `wait` raises NoWorkers. Spawned, not forked: CUDA and threads do not survive a fork.
    """

    queues = False
    report: Callable[[str, Progress], None]

    def __init__(self, devices: Sequence[str]):
        isolate_children()
        share = max(1, cores() // len(devices))
        self._idle = [WorkerProcess(device, share) for device in devices]
        self._busy: dict[WorkerProcess, RunRequest] = {}
        self._why = ""

    @property
    def capacity(self) -> int:
        return len(self._idle) + len(self._busy)

    def submit(self, request: RunRequest) -> None:
        worker = self._idle.pop(0)
        self._busy[worker] = request
        worker.begin(replace(request, device=worker.device))

    def wait(self, seconds: float) -> list[RunResult]:
        if not self.capacity:
            raise NoWorkers(f"no worker process starts, after {MOST_STARTS} attempts each: the last one {self._why}")
        gone = [worker for worker in self._busy if worker.channel is None]
        channels = [worker.channel for worker in self._busy if worker.channel is not None]
        ready = connection.wait(channels, 0 if gone else seconds)
        found = []
        for worker in [worker for worker in self._busy if worker in gone or worker.channel in ready]:
            outcome, text = worker.receive()
            if outcome == "started":
                continue
            found.append(RunResult(self._busy.pop(worker).run_id, outcome, text))
            if worker.failed_starts < MOST_STARTS:
                self._idle.append(worker)
            else:
                self._why = text.removeprefix("its worker ")
        return found

    def kill(self, run_id: str) -> None:
        for worker, request in self._busy.items():
            if request.run_id == run_id:
                worker.kill()

    def stop(self) -> None:
        for worker in self._busy:
            worker.terminate()

    def close(self) -> None:
        workers = [*self._idle, *self._busy]
        for worker in workers:
            worker.terminate()
        until = time.monotonic() + CLOSE_SECONDS
        for worker in workers:
            worker.close(until)
