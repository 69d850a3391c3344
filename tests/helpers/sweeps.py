"""A small sweep that several tests run elsewhere, and whether its records are those of a run in this process."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from conftest import TINY_WORDS, call, command
from disturbed import SETTINGS, content

from metaformer_ablate.records.checkpoints import PREVIOUS
from metaformer_ablate.records.claims import ClaimOwner, Claims
from metaformer_ablate.records.store import Store

EXPERIMENT = """
title: Two rows
baseline: pool3
rows:
  pool3: {label: Pooling size 3, set: {}}
  pool5: {label: Pooling size 5, set: {model.pool_size: 5}}
"""
EPOCHS = 12  # some seconds
# Everything that draws at random or remembers, long enough to be disturbed in the middle.
WORDS = [f"{key}={json.dumps(value)}" for key, value in {**SETTINGS, "train.epochs": EPOCHS}.items()]
WORDS += [word for word in TINY_WORDS if word.partition("=")[0] not in SETTINGS]


_STARTED: list[subprocess.Popen[str]] = []


def kill_all() -> None:
    """Ends the sweeps that a failed test has left."""
    for sweep in _STARTED:
        sweep.kill()


def sweep_words(folder: Path, *more: object) -> list[object]:
    """The words of a sweep of two rows and two seeds, with its results in a folder."""
    experiment = folder / "two.yaml"
    experiment.write_text(EXPERIMENT)
    return ["run", experiment, *WORDS, "--seeds", "2", "--results", folder / "results", *more]


def begin(folder: Path, *more: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts the sweep as a person would, with what it says in a file."""
    with (folder / "stderr.txt").open("a") as stderr:
        sweep = subprocess.Popen(
            command(*sweep_words(folder, "--checkpoint-seconds", "0.2", *more)),
            cwd=folder,
            env={key: value for key, value in {**os.environ, **(env or {})}.items() if key != "ABLATE_WORKERS"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    _STARTED.append(sweep)
    return sweep


def end(sweep: subprocess.Popen[str], folder: Path, code: int = 0) -> str:
    """Waits for a sweep to end with a code; what all sweeps of the folder have said so far."""
    try:
        sweep.wait(timeout=400)
    finally:
        sweep.kill()
    said = (folder / "stderr.txt").read_text()
    assert sweep.returncode == code, said
    assert "Traceback" not in said
    return said


def wait_until(condition: Callable[[], Any], seconds: float = 300) -> Any:
    """What a condition gives once it is true."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)
    return value


def under_way(folder: Path, besides: Container[str] = (), parent: int | None = None) -> ClaimOwner:
    """The claim of a run that is in the middle of its training, once there is one: not of the runs `besides`, and by a
    child of the process `parent` if one is given."""
    claims, store = Claims(folder / "results"), Store(folder / "results")

    def found() -> ClaimOwner | None:
        for holder in claims.held().values():
            wanted = holder.run_id not in besides and parent in (None, holder.parent)
            if wanted and (store.folder(holder.run_id) / PREVIOUS).exists():
                return holder
        return None

    return wait_until(found)


def went_on(folder: Path, run_id: str, disturbed: float) -> bool:
    """Whether a record is of a run that had begun before it was disturbed, and went on from a checkpoint."""
    record = Store(folder / "results").read(run_id)
    assert record is not None
    return datetime.fromisoformat(record.data["started"]).timestamp() < disturbed


def contents(results: Path) -> dict[str, dict[str, Any]]:
    """What has to be the same of every record of a folder."""
    store = Store(results)
    found = {record.run_id: content(record) for record in store}
    assert not store.problems
    return found


def trained_here(folder: Path) -> dict[str, dict[str, Any]]:
    """What the sweep's records have to be."""
    done = call(*sweep_words(folder), "--workers", "0", cwd=folder)
    assert done.code == 0, done.err
    found = contents(folder / "results")
    assert len(found) == 4
    return found
