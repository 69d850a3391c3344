"""W&B without a server: reads the files that it writes offline, and drives its own agent loop.

As a program, `python tests/helpers/offline_wandb.py SWEEP.yaml COMMANDS.json` runs an agent here, gives it the
commands one after another, and prints the exit codes of what it called. A command with a `when` (a glob) is given as
soon as there is such a file, the others once nothing runs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PRIVATE = ("_sweep_with_runs", "_register_agent", "_agent_heartbeat")


@dataclass
class OfflineRun:
    """What one offline file says of a W&B run."""

    folder: Path
    id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    host: str = ""
    began: int = 0  # nanoseconds
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    preempting: bool = False
    exit_code: int | None = None

    def table(self) -> dict[str, Any]:
        """The table that it logged: columns and data."""
        return json.loads((self.folder / "files" / self.history[-1]["table.path"]).read_text())


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The W&B runs below a folder, in the order they began; waits for W&B to write what it has been told."""
    until = time.monotonic() + 60
    while True:
        runs = [_read(path) for path in folder.rglob("offline-run-*/*.wandb")]
        if all(run.exit_code is not None for run in runs) or time.monotonic() > until:
            return sorted(runs, key=lambda run: run.began)
        time.sleep(0.1)


def _read(path: Path) -> OfflineRun:
    run = OfflineRun(path.parent)
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            told = record.run
            run.id, run.project, run.name = told.run_id, told.project, told.display_name
            run.group, run.job_type = told.run_group, told.job_type
            run.host = told.host
            run.began = told.start_time.ToNanoseconds()
            run.config = _values(told.config.update)
        elif kind == "config":
            run.config |= _values(record.config.update)
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary |= _values(record.summary.update)
        elif kind == "preempting":
            run.preempting = True
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: protobuf messages in LevelDB's log format, blocks of 32 KiB behind 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, block, whole = path.read_bytes(), 32768, b""
    assert data[:4] == b":W&B"
    at = 7
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if kind == 0:
            return
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def main(sweep: str, commands: str) -> None:
    """Drives wandb's agent loop; private names of wandb 0.31 stand in for its server."""
    import wandb
    from wandb import wandb_agent
    from wandb.apis.public import sweeps

    left = json.loads(Path(commands).read_text())
    codes: dict[int, int] = {}

    def heartbeat(api: Any, agent: str, metrics: Any, running: dict[str, bool]) -> list[dict[str, Any]]:
        if not left and not running:
            return [{"type": "exit"}]
        when = left[0].get("when") if left else None
        if left and (not running if when is None else any(Path().glob(when))):
            return [left.pop(0)]
        return []

    class Process(wandb_agent.AgentProcess):
        def poll(self) -> int | None:
            code = super().poll()
            if code is not None:
                codes[self._popen.pid] = code
            return code

    missing = [name for name in PRIVATE if not hasattr(sweeps, name)]
    if missing:
        sys.exit(f"this wandb has no {', '.join(missing)}")
    sweeps._sweep_with_runs = lambda *a, **k: {"config": Path(sweep).read_text()}
    sweeps._register_agent = lambda *a, **k: {"id": "agent"}
    sweeps._agent_heartbeat = heartbeat
    wandb.Api = lambda *a, **k: None
    wandb_agent.AgentProcess = Process
    wandb_agent.Agent.POLL_INTERVAL = 0.2
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "sweep1", "WANDB_AGENT_DISABLE_FLAPPING": "true"}
    wandb_agent.Agent(None, multiprocessing.Queue(), sweep_id="sweep1").run()
    print(json.dumps(list(codes.values())))


if __name__ == "__main__":
    main(*sys.argv[1:])
