"""One run over several devices: a process for each (a rank), which share every batch. Loads no torch by itself.

The process that holds the claim on the run starts the ranks and trains nothing itself: on one machine as its children,
on several with `srun`, inside a Slurm job that has been given the nodes. It writes to each rank's standard input the
order, then `stop N` when signal N asks for an end; a rank that finds its input closed has lost its parent and ends. A
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

from metaformer_ablate.claims import Progress
from metaformer_ablate.launchers import Ended, Order
from metaformer_ablate.signals import Interrupted, Stop
from metaformer_ablate.spec import RunSpec, TrainSpec
from metaformer_ablate.yaml_reader import RequestError

# How long the other ranks may take to end once one has ended; they may wait for it and never hear of it.
GRACE_SECONDS = 10.0
POLL_SECONDS = 0.2


def check(spec: RunSpec, device: str, batch_norm: bool | None = None) -> None:
    """Raises RequestError where a run cannot be carried out, or shared, by devices of a kind: cpu or cuda.

    Whether its model has batch norm is seen from the spec, unless given: a comparator's is seen once it is built.
    """
    train = spec.train
    if batch_norm is None:
        convs = (spec.model.stem, spec.model.downsample)
        batch_norm = "batch_norm" in (spec.model.norm, *(conv.norm for conv in convs if conv))
    if train.kernels == "triton" and device == "cpu":
        raise RequestError("train.kernels is 'triton', which needs a GPU with Triton; allowed on a CPU: torch, auto")
    if train.strategy == "fsdp" and device == "cpu":
        raise RequestError("train.strategy is 'fsdp', which needs GPUs; allowed on a CPU: auto, ddp")
    if train.strategy == "fsdp" and train.clip_grad is not None:
        raise RequestError(
            f"train.clip_grad is {train.clip_grad:g} and train.strategy is 'fsdp', under which Lightning cannot take "
            f"the norm of the whole gradient; allowed: train.strategy=ddp"
        )
    if train.strategy == "fsdp" and train.ema is not None:
        raise RequestError(
            f"train.ema is {train.ema:g} and train.strategy is 'fsdp', which has the weights in pieces; allowed: "
            f"train.strategy=ddp"
        )
    if not batch_norm:
        return
    if train.grad_checkpointing:
        raise RequestError(
            f"train.grad_checkpointing is true, but the model of run {spec.run_id} has batch norm, whose running "
            f"statistics would follow each batch twice; allowed: false"
        )
    if train.accumulation > 1:
        raise RequestError(
            f"train.micro_batch is {train.micro_batch}, but the model of run {spec.run_id} has batch norm, whose "
            f"statistics would be those of {train.micro_batch} images; allowed: null"
        )
    if train.world > 1 and device == "cpu":
        raise RequestError(
            f"the model of run {spec.run_id} has batch norm, which {train.world} devices have to synchronise, and "
            f"torch does that on GPUs only; allowed on a CPU: train.devices=1 train.nodes=1"
        )


def check_launch(train: TrainSpec) -> None:
    """Raises RequestError where this process cannot start the ranks of a run."""
    if train.nodes == 1:
        return
    nodes = os.environ.get("SLURM_NNODES") if "SLURM_JOB_ID" in os.environ else None
    if nodes is None:
        raise RequestError(f"train.nodes is {train.nodes}; more than one node needs --launcher slurm")
    if int(nodes) < train.nodes:
        raise RequestError(f"train.nodes is {train.nodes}, but the Slurm job has {nodes} nodes")


# ---------------------------------------------------------------------------------------------------------------------
# The parent


@dataclass
class Ranks:
    """The ranks of a run, and what they tell. `failure` is the first record of a failure, with history and log."""

    order: Order
    train: TrainSpec
    checkpoint: Path | None
    ended: Ended | None = None
    failure: dict[str, Any] | None = None
    codes: dict[int, int] = field(default_factory=dict)  # of those that have ended
    _stop_told: bool = False

    def __post_init__(self) -> None:
        self._told: queue.Queue[tuple[int, Any]] = queue.Queue()
        self._children = self._start()
        first = {"order": asdict(self.order), "checkpoint": self.checkpoint and str(self.checkpoint)}
        for number, child in enumerate(self._children):
            self._say(child, json.dumps(first))
            threading.Thread(target=self._listen, args=(number, child), daemon=True).start()

    def _start(self) -> list[subprocess.Popen]:
        """The children. In a session of their own: Ctrl-C is for the parent, which tells them."""
        words = [sys.executable, "-m", "metaformer_ablate.ranks"]
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

    def follow(self, stop: Stop, report: Callable[[Progress | None], None]) -> None:
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
                    self.ended = Ended(**told["ended"])
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

    def death(self) -> str | None:
        """Which rank died without a word, and how; None where none did. A rank that aborts has lost another one."""
        for number, code in self.codes.items():
            code = 128 - code if code > 128 else code  # srun's own way to tell of a signal
            if code < 0 and (code != -signal.SIGABRT or self.failure is None):
                memory = "; a machine that runs out of memory does that" if -code == signal.SIGKILL else ""
                return f"the process of device {number} was killed by {signal.Signals(-code).name}{memory}"
        if self.failure is None and self.ended is None:
            return f"the processes of its devices exited with {', '.join(map(str, self.codes.values()))} and no result"
        return None


# ---------------------------------------------------------------------------------------------------------------------
# A rank


def main() -> None:
    """Carries out a rank's part of the order on standard input."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no message
    stdin = open(0, "rb", buffering=0, closefd=False)

    def tell(what: str, content: Any) -> None:
        channel.write(json.dumps({what: content}) + "\n")
        channel.flush()

    def listen() -> None:
        for line in iter(stdin.readline, b""):
            stop.number = int(line.split()[1])
        os._exit(1)  # the parent is gone

    first = json.loads(stdin.readline())
    stop = Stop()
    threading.Thread(target=listen, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop.catching(signal.SIGTERM):
        checkpoint = first["checkpoint"] and Path(first["checkpoint"])
        code = _carry_out(Order(**first["order"]), checkpoint, stop, tell)
    os._exit(code)  # at once: others may be gone, and nothing may wait for them


def _carry_out(order: Order, checkpoint: Path | None, stop: Stop, tell: Callable[[str, Any], None]) -> int:
    from metaformer_ablate.data.files import DataFolder
    from metaformer_ablate.records import Store, StoreError
    from metaformer_ablate.run import Handling, Runner, choose_devices

    spec = RunSpec.model_validate(order.spec)
    names = ("SLURM_PROCID", "SLURM_LOCALID") if spec.train.nodes > 1 else ("LOCAL_RANK", "LOCAL_RANK")
    rank, local = (int(os.environ[name]) for name in names)

    def end(outcome: str, text: str = "") -> int:
        if rank == 0 or outcome in ("request", "store"):
            tell("ended", asdict(Ended(order.run_id, outcome, text)))
        return 0 if outcome == "recorded" else 1

    try:
        devices = choose_devices(order.device, spec.train.devices)
        store = Store(Path(order.results))
        runner = Runner(store, DataFolder.choose(order.data), devices[local], devices)
        handling = Handling(
            (lambda progress: tell("progress", asdict(progress))) if rank == 0 else (lambda progress: None),
            checkpoint_seconds=order.checkpoint_seconds,
            keep_checkpoints=order.keep_checkpoints,
            stop=stop,
        )
        trained = runner.train(spec, handling, lambda watch: watch.use(checkpoint))
        if trained.record["status"] == "failed":
            tell("failed", {"record": trained.record, "history": trained.history, "log": trained.log})
            return 1
        if rank == 0:
            trained.write(store, spec)
        return end("recorded")
    except Interrupted as interruption:
        return end("stopped", str(interruption))
    except RequestError as error:
        return end("request", str(error))
    except StoreError as error:
        return end("store", str(error))


if __name__ == "__main__":
    main()
