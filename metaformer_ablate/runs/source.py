"""The run that another one starts from (`model.init_from: recipe:NAME`): trained first, its weights kept beside it."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.checkpoints import LAST, is_whole
from metaformer_ablate.records.claims import Claims
from metaformer_ablate.records.compare import compare
from metaformer_ablate.records.record import Record, StoreError
from metaformer_ablate.records.status import RunState, look_up
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted, StopRequest

logger = logging.getLogger(__name__)

# Between two looks at a run that somebody else trains.
WAIT_SECONDS = 1.0

Execute = Callable[[RunRequest], RunResult]


class SourceFailed(Exception):
    """The run that another one starts from has no weights to start from: the other one fails, with this reason."""


def with_source(request: RunRequest, execute: Execute, stop: StopRequest) -> RunRequest:
    """The request with the file of weights that its run starts from, which are trained first where they are missing.

    `execute` carries out a request. Raises SourceFailed where the source ends without weights, Interrupted where the
    stop is asked for, RequestError and StoreError as runs do.
    """
    spec = RunSpec.model_validate(request.spec)
    if spec.source is None:
        return request
    path = _weights(spec.source, request, execute, stop)
    started = spec.model_copy(update={"model": spec.model.model_copy(update={"init_from": str(path)}), "source": None})
    return replace(request, spec=started.with_execution())


def missing_sources(spec: RunSpec, store: Store, folder: DataFolder) -> tuple[RunSpec, ...]:
    """The runs to be trained before this one, in their order: what it starts from, where that has no weights."""
    source = spec.source
    if source is None or kept_weights(_state(source, store, folder)) is not None:
        return ()
    return (*missing_sources(source, store, folder), source)


def _state(source: RunSpec, store: Store, folder: DataFolder) -> RunState:
    return look_up(source.run_id, source.seed, store, folder.fingerprint(source.data.name, source.data.reader))


def kept_weights(state: RunState) -> Path | None:
    """The weights that lie beside a record, whole; None where there are none, and where the record is stale."""
    if state.record is None or state.status != "ok":
        return None
    path = state.record.folder / LAST
    return path if path.is_file() and is_whole(path) else None


def _ended_with(path: Path, record: Record) -> bool:
    """Whether weights are those that a run ended with: one that lost its claim may have left its last ones there."""
    import torch

    from metaformer_ablate.runs.resume import STATE_KEY

    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["callbacks"].get(STATE_KEY)
    return state is not None and len(state["history"]) == record.data["epochs"]


def _weights(source: RunSpec, request: RunRequest, execute: Execute, stop: StopRequest) -> Path:
    store, folder = Store(Path(request.results)), DataFolder.choose(request.data)
    state = _state(source, store, folder)
    record = state.record
    if record is not None and (path := kept_weights(state)) is not None and _ended_with(path, record):
        return path
    of_source = replace(
        request,
        spec=source.with_execution(),
        run_id=source.run_id,
        name=f"{request.name}, first the run it starts from",
        replaces=record.checksum if record is not None and state.status != "ok" else None,
        keep_checkpoints=True,
        dead_claim=None,
        wandb=None,
    )
    if record is not None and state.status == "ok":
        return _train_again(record, of_source, execute)
    logger.info(f"{request.name}: first the run that it starts from, {source.run_id}")
    while (ended := execute(of_source)).outcome == "busy":  # another run of the sweep starts from it too
        claims, waited = Claims(store.path), 0.0
        while claims.current(source.run_id) is not None and waited < 60:
            _pause(stop)
            waited += WAIT_SECONDS
        _pause(stop)
    return _path_after(ended, _state(source, store, folder))


def _pause(stop: StopRequest) -> None:
    time.sleep(WAIT_SECONDS)
    if stop() and stop.number is not None:
        raise Interrupted(stop.number)


def _path_after(ended: RunResult, state: RunState) -> Path:
    _raise_unless_recorded(ended)
    if (path := kept_weights(state)) is not None:
        return path
    record = state.record
    why = "its weights are not there" if record is None else f"{state.status}: {record.data.get('reason')}"
    raise SourceFailed(f"the run that it starts from, {state.run_id}, has no weights ({why})")


def _raise_unless_recorded(ended: RunResult) -> None:
    if ended.outcome == "request":
        raise RequestError(ended.text)
    if ended.outcome == "store":
        raise StoreError(ended.text)
    if ended.outcome == "stopped":
        raise Interrupted(signal.Signals[ended.text])
    if ended.outcome != "recorded":
        raise SourceFailed(f"the run that it starts from, {ended.run_id}, {ended.outcome}: {ended.text}")


def _train_again(record: Record, request: RunRequest, execute: Execute) -> Path:
    """Trains a run whose record has no weights once more; they are kept beside it where it repeats its record."""
    logger.info(f"{request.name}: run {record.run_id} has no weights beside its record and is trained once more")
    scratch = Path(mkdtemp(prefix=".again-", dir=Store(Path(request.results)).path))
    try:
        _raise_unless_recorded(execute(replace(request, results=str(scratch))))
        again = Store(scratch).find(record.run_id)
        found: dict[str, Any] = compare(record, again)
        differing = [line for line in found["differences"] if line["what"] in (record.data["metrics"] or {})]
        if again.status != "ok" or differing:
            first = differing[0] if differing else {"what": "status", "then": record.status, "now": again.status}
            raise RequestError(
                f"run {record.run_id} was trained again for its weights and did not repeat its record: {first['what']} "
                f"is {first['now']}, recorded is {first['then']}; allowed: `ablate rm {record.run_id}`, which has both "
                f"trained anew"
            )
        kept = record.folder / LAST
        (again.folder / LAST).replace(kept)
        return kept
    except OSError as error:
        raise StoreError.of(scratch.parent, f"the weights of run {record.run_id}", error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
