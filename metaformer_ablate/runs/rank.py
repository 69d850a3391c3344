"""A rank: the process of one device of a run that several share."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.console import log_to_stderr
from metaformer_ablate.system.signals import Interrupted, StopRequest


def main() -> None:
    """Carries out a rank's part of the request on standard input."""
    log_to_stderr()
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
    stop = StopRequest()
    threading.Thread(target=listen, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop.catching(signal.SIGTERM):
        checkpoint = first["checkpoint"] and Path(first["checkpoint"])
        code = _carry_out(RunRequest(**first["request"]), checkpoint, stop, tell)
    os._exit(code)  # at once: others may be gone, and nothing may wait for them


def _carry_out(
    request: RunRequest, checkpoint: Path | None, stop: StopRequest, tell: Callable[[str, Any], None]
) -> int:
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.record import StoreError
    from metaformer_ablate.records.store import Store
    from metaformer_ablate.runs.options import RunOptions
    from metaformer_ablate.runs.runner import Runner
    from metaformer_ablate.system.devices import choose_devices

    spec = RunSpec.model_validate(request.spec)
    names = ("SLURM_PROCID", "SLURM_LOCALID") if spec.train.nodes > 1 else ("LOCAL_RANK", "LOCAL_RANK")
    rank, local = (int(os.environ[name]) for name in names)

    def end(outcome: str, text: str = "") -> int:
        if rank == 0 or outcome in ("request", "store"):
            tell("ended", asdict(RunResult(request.run_id, outcome, text)))
        return 0 if outcome == "recorded" else 1

    try:
        devices = choose_devices(request.device, spec.train.devices)
        store = Store(Path(request.results))
        runner = Runner(store, DataFolder.choose(request.data), devices[local], devices)
        options = RunOptions(
            (lambda progress: tell("progress", asdict(progress))) if rank == 0 else (lambda progress: None),
            checkpoint_seconds=request.checkpoint_seconds,
            keep_checkpoints=request.keep_checkpoints,
            stop=stop,
        )
        trained = runner.train(spec, options, lambda callback: callback.use_checkpoint(checkpoint))
        if trained.record["status"] == "failed":
            tell("failed", {"record": trained.record, "history": trained.history, "log": trained.log})
            return 1
        if rank == 0:
            with stop.polling():  # asked to end now, it ends with its record
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
