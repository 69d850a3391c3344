"""Runs on this machine: in worker processes that live for many runs, or in this process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Progress
from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.launchers.base import Launcher, NoWorkers
from metaformer_ablate.system.processes import exit_with_parent
from metaformer_ablate.system.signals import StopRequest, isolate_children


def launcher(
    specs: Sequence[RunSpec], device: str, stop: StopRequest, workers: int | None = None, **other_options: Any
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
        return InProcess(devices[0], stop)
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

    def __init__(self, device: str, stop: StopRequest):
        self.device, self._stop = device, stop
        self._ended: list[RunResult] = []

    def submit(self, request: RunRequest) -> None:
        from metaformer_ablate.runs.worker import execute

        request = replace(request, device=self.device)
        self._ended.append(execute(request, self._stop, lambda progress: self.report(request.run_id, progress)))

    def wait(self, seconds: float) -> list[RunResult]:
        ended, self._ended = self._ended, []
        return ended

    def kill(self, run_id: str) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


# A worker that has failed to start so often in a row is not started again.
MOST_STARTS = 3


# How long workers may take to end once they are told to.
CLOSE_SECONDS = 3.0


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
        self._idle = [_Worker(device, share) for device in devices]
        self._busy: dict[_Worker, RunRequest] = {}
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


class _Worker:
    """A process that carries out one order after another; none before the first. `channel` is None where none runs."""

    def __init__(self, device: str, compilers: int):
        self.device, self._compilers = device, compilers
        self.channel: Any = None
        self.failed_starts = 0  # in a row
        self._process: Any = None
        self._started = self._killed = False
        self._problem = ""

    def begin(self, request: RunRequest) -> None:
        """Sends it an request. What goes wrong is told by `receive`."""
        try:
            if self._process is not None and not self._process.is_alive():  # killed while it had nothing to do
                self._let_go()
            if self.channel is None:
                self._start()
            self.channel.send(request)
        except OSError as error:  # no process could be had, or this one is gone
            self._problem = str(error)

    def _start(self) -> None:
        context = get_context("spawn")
        self._started = self._killed = False
        self._process, self._problem = None, ""
        ours, theirs = context.Pipe()
        # Ctrl-C on a terminal goes to children too, and one that is not ready for it would print a traceback.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            process = context.Process(target=_serve, args=(theirs, os.getpid(), self._compilers))
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._process, self.channel = process, ours

    def receive(self) -> tuple[str, str]:
        """`started`, or outcome and text of a `RunResult`, for a process that has sent something or is gone."""
        try:
            if self.channel is None:
                raise EOFError
            said = self.channel.recv()
        except (EOFError, OSError):
            return self._dead()
        if isinstance(said, RunResult):
            return said.outcome, said.text
        if said is not None:  # what it could not import
            self._problem = said
            return self._dead()
        self._started, self.failed_starts = True, 0
        return "started", ""

    def _dead(self) -> tuple[str, str]:
        code = self._let_go()
        if self._killed:
            return "died", "it made no step for too long and was killed"
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        memory = "; a machine that runs out of memory does that" if -code == signal.SIGKILL else ""
        if self._started:
            return "died", f"its worker {how}{memory}"
        self.failed_starts += 1
        if self._problem and code >= 0:
            return "unstarted", f"its worker could not start: {self._problem}"
        return "unstarted", f"its worker {how} while it started{memory}"

    def _let_go(self) -> int:
        """Of a process that has ended or is about to; its exit code."""
        code = 0
        if self._process is not None:
            self.close(time.monotonic() + CLOSE_SECONDS)
            code = self._process.exitcode
            self.channel.close()
        self.channel = self._process = None
        return code

    def kill(self) -> None:
        """Ends a process that hangs."""
        self._killed = True
        if self._process is not None:
            self._process.kill()

    def terminate(self) -> None:
        """Asks what it trains to save its place. One that trains nothing ends."""
        if self._process is not None:
            self._process.terminate()

    def close(self, until: float) -> None:
        if self._process is not None:
            self._process.join(max(0.0, until - time.monotonic()))
            self._process.kill()
            self._process.join()


class _WorkerStop(StopRequest):
    """In a worker: what trains saves its place; one that does not train has nothing to save and ends without a word."""

    def _handle(self, number: int, frame: Any) -> None:
        if not self.polled:
            os._exit(128 + number)
        self.number = number


def _serve(channel: Any, parent: int, compilers: int) -> None:
    """A worker: says None once it is ready, or what it lacks; then takes orders and says how each has ended.

    Ctrl-C is for the sweep to handle, SIGTERM asks for an end, and a sweep that is gone is one. Where it compiles, it
    does so with `compilers` processes: torch would take as many as there are cores, each time.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(compilers))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    stop = _WorkerStop()
    stop.catch(signal.SIGTERM)
    exit_with_parent(parent)
    try:
        from metaformer_ablate.runs.worker import execute
    except Exception as error:  # whatever is wrong with what is installed
        channel.send(f"{type(error).__name__}: {error}")
        return
    try:
        channel.send(None)
        while True:
            request = channel.recv()
            stop.number = None  # of the order before it
            channel.send(_carry_out(execute, request, stop))
    except (EOFError, OSError):  # the sweep has gone
        return


def _carry_out(
    execute: Callable[[RunRequest, StopRequest], RunResult], request: RunRequest, stop: StopRequest
) -> RunResult:
    try:
        return execute(request, stop)
    except Exception as error:  # the worker is as good as before
        return RunResult(request.run_id, "died", f"its worker failed: {type(error).__name__}: {error}")
