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

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.checkpoints import LAST, is_whole
from metaformer_ablate.records.claims import Claims
from metaformer_ablate.records.compare import compare
from metaformer_ablate.records.record import Record, StoreError
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


def missing_sources(spec: RunSpec, store: Store) -> tuple[RunSpec, ...]:
    """The runs to be trained before this one, in their order: what it starts from, where that has no weights."""
    source = spec.source
    if source is None or kept_weights(store.read(source.run_id)) is not None:
        return ()
    return (*missing_sources(source, store), source)


def kept_weights(record: Record | None) -> Path | None:
    """The weights that lie beside a record, whole; None where there are none."""
    if record is None or record.status != "ok":
        return None
    path = record.folder / LAST
    return path if path.is_file() and is_whole(path) else None


def _weights(source: RunSpec, request: RunRequest, execute: Execute, stop: StopRequest) -> Path:
    store = Store(Path(request.results))
    record = store.read(source.run_id)
    if (path := kept_weights(record)) is not None:
        return path
    of_source = replace(
        request,
        spec=source.with_execution(),
        run_id=source.run_id,
        name=f"{request.name}, first the run it starts from",
        replaces=record.checksum if record is not None and record.status != "ok" else None,
        keep_checkpoints=True,
        dead_claim=None,
        wandb=None,
    )
    if record is not None and record.status == "ok":
        return _train_again(record, of_source, execute)
    logger.info(f"{request.name}: first the run that it starts from, {source.run_id}")
    while (ended := execute(of_source)).outcome == "busy":  # another run of the sweep starts from it too
        claims, waited = Claims(store.path), 0.0
        while claims.current(source.run_id) is not None and waited < 60:
            _pause(stop)
            waited += WAIT_SECONDS
        _pause(stop)
    return _path_after(ended, store, source)


def _pause(stop: StopRequest) -> None:
    time.sleep(WAIT_SECONDS)
    if stop() and stop.number is not None:
        raise Interrupted(stop.number)


def _path_after(ended: RunResult, store: Store, source: RunSpec) -> Path:
    _raise_unless_recorded(ended)
    record = store.read(source.run_id)
    if (path := kept_weights(record)) is not None:
        return path
    why = "its weights are not there" if record is None else f"{record.status}: {record.data.get('reason')}"
    raise SourceFailed(f"the run that it starts from, {source.run_id}, has no weights ({why})")


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
