"""A worker process: carries out one request after another and says how each has ended."""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing import get_context
from types import ModuleType
from typing import TYPE_CHECKING, Any

from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.system.console import log_to_stderr
from metaformer_ablate.system.processes import exit_with_parent
from metaformer_ablate.system.signals import StopRequest

if TYPE_CHECKING:
    from metaformer_ablate.runs.worker import Worker

# How long workers may take to end once they are told to.
CLOSE_SECONDS = 3.0


class WorkerProcess:
    """A process that carries out one request after another, begun with the first. `channel` is None where none runs."""

    def __init__(self, device: str, compilers: int):
        self.device, self._compilers = device, compilers
        self.channel: Any = None
        self.failed_starts = 0  # in a row
        self._process: Any = None
        self._started = self._killed = False
        self._problem = ""

    def begin(self, request: RunRequest) -> None:
        """Sends it a request. What goes wrong is told by `receive`."""
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
        # A spawned process imports the main module of this one, which may be a script that calls `run` as it is read.
        main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            process = context.Process(target=_serve, args=(theirs, os.getpid(), self._compilers))
            process.start()
        finally:
            sys.modules["__main__"] = main
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
        if said is not None:  # what it could not import; however long it then takes to end
            self._let_go()
            self.failed_starts += 1
            return "unstarted", f"its worker could not start: {said}"
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
    """A worker: says None once it is ready, or what it lacks; then takes requests and says how each has ended.

    Ctrl-C is for the sweep to handle, SIGTERM asks for an end, and a sweep that is gone is one. Where it compiles, it
    does so with `compilers` processes: torch would take as many as there are cores, each time.
    """
    log_to_stderr()
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(compilers))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    stop = _WorkerStop()
    stop.catch(signal.SIGTERM)
    exit_with_parent(parent)
    try:
        from metaformer_ablate.runs.worker import Worker

        worker = Worker()
    except Exception as error:  # whatever is wrong with what is installed
        channel.send(f"{type(error).__name__}: {error}")
        return
    try:
        channel.send(None)
        while True:
            request = channel.recv()
            stop.number = None  # of the request before it
            channel.send(_carry_out(worker, request, stop))
    except (EOFError, OSError):  # the sweep has gone
        return


def _carry_out(worker: Worker, request: RunRequest, stop: StopRequest) -> RunResult:
    try:
        return worker.execute(request, stop)
    except Exception as error:  # the worker is as good as before
        return RunResult(request.run_id, "died", f"its worker failed: {type(error).__name__}: {error}")
