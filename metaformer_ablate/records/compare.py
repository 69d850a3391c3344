"""Whether two records of one run are the same, what differs and by how much, and what could explain it. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import LATER_PACKAGES, Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.own_class import located
from metaformer_ablate.spec.run_spec import SEMANTICS, RunSpec
from metaformer_ablate.system.files import open_regular


def read_spec(record: Record) -> RunSpec:
    """The spec that a record was trained by. Raises RequestError where this code reads another kind of spec."""
    from pydantic import ValidationError

    try:
        return RunSpec.model_validate(record.spec())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(key) for key in first["loc"])
        raise RequestError(f"{record.folder / 'spec.yaml'}: {place}: {first['msg']}; written by other code") from None


def spec_of_record(record: Record, init_from: str | None = None, own_class: Sequence[str] = ()) -> RunSpec:
    """The spec that a record was trained by, ready to be trained again.

    `init_from` and `own_class` are files that a record does not name. Raises RequestError where this code reads another
    kind of spec, or has not got the weights it started from or the class of its model.
    """
    import hashlib

    spec = read_spec(record)
    spec = spec.model_copy(update={"model": located(spec.model, record.run_id, own_class)})
    if (run_id := spec.model.init_run) is not None:
        source = Store(record.folder.parent.parent).read(run_id)
        if source is None:
            raise RequestError(f"run {record.run_id} started from run {run_id}, whose record is not beside it")
        return spec.started_from(spec_of_record(source, init_from, own_class))
    wanted = spec.model.init_sha256
    if wanted is None:
        return spec
    if init_from is None:
        raise RequestError(f"run {record.run_id} started from weights with SHA-256 {wanted}: give --init-from FILE")
    try:
        with open_regular(init_from) as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"--init-from {init_from}: cannot be read: {error.strerror}") from None
    if found != wanted:
        raise RequestError(f"--init-from {init_from} has SHA-256 {found}; run {record.run_id} started from {wanted}")
    return spec.model_copy(update={"model": spec.model.model_copy(update={"init_from": init_from})})


def compare(then: Record, now: Record) -> dict[str, Any]:
    """{"run_id", "identical", "differences", "environment"}: two records of one run.

    Identical means bit for bit in status, metrics, history (its seconds apart) and predictions. Each difference is
    {"what", "then", "now"}; `environment` has what of the surroundings is not the same.
    """
    found = [
        *((key, then.data[key], now.data[key]) for key in ("status", "reason")),
        *_paired(then.data["metrics"], now.data["metrics"]),
        *_of_history(then.history(), now.history()),
        *(_of_predictions(then, now) if then.status == now.status == "ok" else ()),
    ]
    differences = [{"what": what, "then": one, "now": other} for what, one, other in found if one != other]
    around = _environment(then, now, identical=not differences)
    environment = [{"what": what, "then": one, "now": other} for what, one, other in around if one != other]
    return {
        "run_id": then.run_id,
        "identical": not differences,
        "differences": differences,
        "environment": environment,
    }


Pair = tuple[str, Any, Any]  # what is compared, what it was then, what it is now


def _paired(then: dict[str, Any] | None, now: dict[str, Any] | None, what: str = "", absent: Any = None) -> list[Pair]:
    """The values of two mappings by key."""
    one, other = then or {}, now or {}
    return [(f"{what}{key}", one.get(key, absent), other.get(key, absent)) for key in sorted({*one, *other})]


def _of_history(then: list[dict[str, float]], now: list[dict[str, float]]) -> Iterator[Pair]:
    yield "epochs in the history", len(then), len(now)
    for one, other in zip(then, now, strict=False):
        if keys := [key for key in one if key != "seconds" and one[key] != other.get(key)]:
            yield f"history, first in epoch {one['epoch']:.0f}: {keys[0]}", one[keys[0]], other.get(keys[0])
            return


def _of_predictions(then: Record, now: Record) -> Iterator[Pair]:
    """The first array of the predictions that differs: in its shape, its entries or, of decimals, their values."""
    import numpy as np

    before, after = then.predictions(), now.predictions()
    for name in before:
        one, other = before[name], after[name]
        if one.shape != other.shape:
            yield f"shape of {name}", list(one.shape), list(other.shape)
        elif np.array_equal(one, other):
            continue
        elif one.dtype.kind == "f":
            yield f"{name}, at most by", 0.0, float(np.abs(one - other).max())
        else:
            yield f"entries of {name} that differ", 0, int((one != other).sum())
        return


def _environment(then: Record, now: Record, identical: bool) -> Iterator[Pair]:
    """What was computed with and by, then and now."""
    named = then.data["versions"]
    comparable = {name: v for name, v in now.data["versions"].items() if name in named or name not in LATER_PACKAGES}
    yield from _paired(named, comparable, "version of ")
    # Older records lack the last three; then the spec left no choice.
    for key in ("device", "data_fingerprint", *(k for k in ("precision", "compiled", "kernels") if k in then.data)):
        yield key, then.data[key], now.data.get(key)
    if not identical or "cpu" in then.data:  # here there was a choice, which older records do not tell
        yield from _paired(then.data.get("cpu"), now.data.get("cpu"), "CPU ", "unknown")
    yield "operators that do not repeat", then.data.get("not_repeatable"), now.data.get("not_repeatable")
    for key in ("commit", "dirty"):
        yield key, (then.data["git"] or {}).get(key), (now.data["git"] or {}).get(key)
    yield "semantics", then.spec().get("semantics"), SEMANTICS
