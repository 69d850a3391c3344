"""One run over several devices: a process for each (a rank), which share every batch. Loads no torch by itself.

The process that holds the claim on the run starts the ranks and trains nothing itself: on one machine as its children,
on several with `srun`, inside a Slurm job that has been given the nodes. It writes to each rank's standard input the
request, then `stop N` when signal N asks for an end; a rank that finds its input closed has lost its parent and ends. A
rank writes lines of JSON to its standard output: how far it is, how it ended, or what failed. Rank 0 writes the record.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metaformer_ablate.records.claims import Progress
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.system.signals import StopRequest
from metaformer_ablate.training.spec import TrainSpec

# How long the other ranks may take to end once one has ended; they may wait for it and never hear of it.
GRACE_SECONDS = 10.0


POLL_SECONDS = 0.2


@dataclass
class RankProcesses:
    """The ranks of a run, and what they tell. `failure` is the first record of a failure, with history and log."""

    request: RunRequest
    train: TrainSpec
    checkpoint: Path | None
    ended: RunResult | None = None
    failure: dict[str, Any] | None = None
    codes: dict[int, int] = field(default_factory=dict)  # of those that have ended
    _stop_told: bool = False

    def __post_init__(self) -> None:
        self._told: queue.Queue[tuple[int, Any]] = queue.Queue()
        self._children = self._start()
        first = {"request": asdict(self.request), "checkpoint": self.checkpoint and str(self.checkpoint)}
        for number, child in enumerate(self._children):
            self._say(child, json.dumps(first))
            threading.Thread(target=self._listen, args=(number, child), daemon=True).start()

    def _start(self) -> list[subprocess.Popen]:
        """The children. In a session of their own: Ctrl-C is for the parent, which tells them."""
        words = [sys.executable, "-P", "-m", "metaformer_ablate.runs.rank"]  # not what lies in the current folder
        environments: list[dict[str, str]] = [{}]
        if self.train.nodes > 1:
            each = f"--ntasks-per-node={self.train.devices}"
            count = [f"--nodes={self.train.nodes}", f"--ntasks={self.train.world}", each]
            words = ["srun", *count, "--overlap", "--kill-on-bad-exit=1", *words]
        else:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"}
            environments = [{**place, "LOCAL_RANK": str(rank)} for rank in range(self.train.devices)]
        return [
            subprocess.Popen(
                words,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            for environment in environments
        ]

    def _say(self, child: subprocess.Popen, line: str) -> None:
        assert child.stdin is not None
        try:
            child.stdin.write(line.encode() + b"\n")
            child.stdin.flush()
        except OSError:  # it is gone, as its exit code will tell
            pass

    def _listen(self, number: int, child: subprocess.Popen) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            try:
                self._told.put((number, json.loads(line)))
            except ValueError:
                sys.stderr.write(line.decode(errors="replace"))
        self._told.put((number, child.wait()))

    def wait(self, stop: StopRequest, report: Callable[[Progress | None], None]) -> None:
        """Until all have ended. `report` is called often, with None where there is no progress; it may raise."""
        until = float("inf")
        try:
            while len(self.codes) < len(self._children) and time.monotonic() < until:
                if stop() and not self._stop_told:
                    self._stop_told = True
                    for child in self._children:
                        self._say(child, f"stop {stop.number or int(signal.SIGTERM)}")
                try:
                    number, told = self._told.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    report(None)
                    continue
                if isinstance(told, int):
                    self.codes[number] = told
                elif "progress" in told:
                    report(Progress(**told["progress"]))
                elif "ended" in told:
                    self.ended = RunResult(**told["ended"])
                elif self.failure is None:
                    self.failure = told["failed"]
                if self.codes or self.ended or self.failure:
                    until = min(until, time.monotonic() + GRACE_SECONDS)
        finally:
            self._close()

    def _close(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
            assert child.stdin is not None
            try:
                child.stdin.close()
            except OSError:
                pass

    def crash_reason(self) -> str | None:
        """Which rank died without a word, and how; None where none did. A rank that aborts has lost another one."""
        for number, code in self.codes.items():
            code = 128 - code if code > 128 else code  # srun's own way to tell of a signal
            if code < 0 and (code != -signal.SIGABRT or self.failure is None):
                memory = "; a machine that runs out of memory does that" if -code == signal.SIGKILL else ""
                return f"the process of device {number} was killed by {signal.Signals(-code).name}{memory}"
        if self.failure is None and self.ended is None:
            return f"the processes of its devices exited with {', '.join(map(str, self.codes.values()))} and no result"
        return None
