"""Runs on this machine: in worker processes that live for many runs, or in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures import wait as wait_for
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.runs.constraints import check
from metaformer_ablate.runs.request import Ended, Order
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.launchers.base import Launcher
from metaformer_ablate.system.processes import end_with
from metaformer_ablate.system.signals import Stop


def launcher(
    specs: Sequence[RunSpec], device: str, stop: Stop, workers: int | None = None, **of_others: Any
) -> Launcher:
    """`workers` processes; by default as many as fit the GPUs with the devices that a run takes, or the cores with the
    threads. 0 trains in this process. Raises RequestError where a run cannot have its devices here."""
    devices = devices_of(device)
    each = max(spec.train.devices for spec in specs)
    for spec in specs:
        if spec.train.nodes > 1:
            raise RequestError(f"train.nodes is {spec.train.nodes}; more than one node needs --launcher slurm")
        check(spec, devices[0].partition(":")[0])
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
        return Inline(devices[0], stop)
    return Workers([devices[i % len(devices)] for i in range(workers)])


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


class Inline:
    """One run after another in this process: for a debugger, and for tests."""

    capacity, queues = 1, False

    report: Callable[[str, Progress], None] = staticmethod(lambda run_id, progress: None)

    def __init__(self, device: str, stop: Stop):
        self.device, self._stop = device, stop
        self._ended: list[Ended] = []

    def submit(self, order: Order) -> None:
        from metaformer_ablate.runs.worker import execute

        order = replace(order, device=self.device)
        self._ended.append(execute(order, self._stop, lambda progress: self.report(order.run_id, progress)))

    def wait(self, seconds: float) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def kill(self, run_id: str) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class Workers:
    """Worker processes, one pool of one process each, so that each keeps its device and can be killed by itself.

    pebble replaces a worker that died. Spawned, not forked: CUDA and threads do not survive a fork.
    """

    queues = False
    report: Callable[[str, Progress], None]

    def __init__(self, devices: Sequence[str]):
        self.capacity = len(devices)
        share = max(1, cores() // len(devices))
        self._idle = [_Worker(device, share) for device in devices]
        self._busy: dict[Any, tuple[Order, _Worker]] = {}  # by future

    def submit(self, order: Order) -> None:
        worker = self._idle.pop(0)
        order = replace(order, device=worker.device)
        self._busy[worker.pool.schedule(_execute, args=[order])] = (order, worker)

    def wait(self, seconds: float) -> list[Ended]:
        done, _ = wait_for(self._busy, timeout=seconds, return_when=FIRST_COMPLETED)
        ended = []
        for future in done:
            order, worker = self._busy.pop(future)
            self._idle.append(worker)
            ended.append(self._outcome(future, order))
        return ended

    def _outcome(self, future: Any, order: Order) -> Ended:
        from pebble import ProcessExpired

        if future.cancelled():
            return Ended(order.run_id, "died", "it made no step for too long and was killed")
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, ProcessExpired):
            code = error.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            memory = "; a machine that runs out of memory does that" if -code == signal.SIGKILL else ""
            return Ended(order.run_id, "died", f"its worker {how}{memory}")
        return Ended(order.run_id, "died", f"its worker failed: {type(error).__name__}: {error}")

    def kill(self, run_id: str) -> None:
        for future, (order, _) in self._busy.items():
            if order.run_id == run_id:
                future.cancel()

    def stop(self) -> None:
        for order, _ in self._busy.values():
            holder = Claims(Path(order.results)).top(order.run_id)
            # Only what is ours: the claim on a busy run may be another sweep's.
            if holder is not None and holder.parent == os.getpid() and not holder.is_gone():
                os.kill(holder.pid, signal.SIGTERM)

    def close(self) -> None:
        for worker in [*self._idle, *(worker for _, worker in self._busy.values())]:
            worker.pool.stop()
            worker.pool.join()


class _Worker:
    def __init__(self, device: str, compilers: int):
        from pebble import ProcessPool

        self.device = device
        self.pool = ProcessPool(
            max_workers=1, context=get_context("spawn"), initializer=_prepare, initargs=[os.getpid(), compilers]
        )


class _WorkerStop(Stop):
    """In a worker: what trains saves its place; one that does not train has nothing to save and ends without a word."""

    def _handle(self, number: int, frame: Any) -> None:
        if not self.polled:
            os._exit(128 + number)
        self.number = number


_stop = _WorkerStop()


def _prepare(parent: int, compilers: int) -> None:
    """In a new worker: Ctrl-C is for the sweep to handle, SIGTERM asks for an end, and a sweep that is gone is one.

    Where it compiles, it does so with `compilers` processes: torch would take as many as there are cores, each time.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(compilers))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop.catch(signal.SIGTERM)
    end_with(parent)


def _execute(order: Order) -> Ended:
    from metaformer_ablate.runs.worker import execute

    return execute(order, _stop)
