"""Whether two records of one run are the same, what differs and by how much, and what could explain it. No torch."""

from __future__ import annotations

from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record
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


def spec_of_record(record: Record, init_from: str | None = None) -> RunSpec:
    """The spec that a record was trained by, ready to be trained again.

    Raises RequestError where this code reads another kind of spec, or has not got the weights it started from.
    """
    import hashlib

    spec = read_spec(record)
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
    import numpy as np

    found: list[dict[str, Any]] = []

    def differ(what: str, one: Any, other: Any) -> None:
        found.append({"what": what, "then": one, "now": other})

    for key in ("status", "reason"):
        if then.data[key] != now.data[key]:
            differ(key, then.data[key], now.data[key])
    ours, theirs = then.data["metrics"] or {}, now.data["metrics"] or {}
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            differ(key, ours.get(key), theirs.get(key))
    one, other = then.history(), now.history()
    if len(one) != len(other):
        differ("epochs in the history", len(one), len(other))
    for line, again in zip(one, other, strict=False):
        if keys := [key for key in line if key != "seconds" and line[key] != again[key]]:
            differ(f"history, first in epoch {line['epoch']:.0f}: {keys[0]}", line[keys[0]], again[keys[0]])
            break
    if then.status == now.status == "ok":
        before, after = then.predictions(), now.predictions()
        if len(before["label"]) != len(after["label"]):
            differ("evaluated images", len(before["label"]), len(after["label"]))
        elif changed := int((before["predicted"] != after["predicted"]).sum()):
            differ("images predicted otherwise", 0, changed)
        elif not np.array_equal(before["confidence"], after["confidence"]):
            largest = float(np.abs(before["confidence"] - after["confidence"]).max())
            differ("confidence, at most by", 0.0, largest)
    identical = not found
    surroundings: list[dict[str, Any]] = []
    versions = [record.data["versions"] or {} for record in (then, now)]
    pairs = {f"version of {name}": [v.get(name) for v in versions] for name in sorted({*versions[0], *versions[1]})}
    pairs |= {key: [then.data[key], now.data[key]] for key in ("device", "data_fingerprint")}
    # Older records lack these; then the spec left no choice.
    computed = [key for key in ("precision", "compiled", "kernels") if key in then.data]
    pairs |= {key: [then.data[key], now.data.get(key)] for key in computed}
    if not identical or "cpu" in then.data:  # here there was a choice, which older records do not tell
        cpus = [record.data.get("cpu") or {} for record in (then, now)]
        pairs |= {f"CPU {key}": [cpu.get(key, "unknown") for cpu in cpus] for key in sorted({*cpus[0], *cpus[1]})}
    pairs |= {key: [(r.data["git"] or {}).get(key) for r in (then, now)] for key in ("commit", "dirty")}
    pairs["semantics"] = [then.spec().get("semantics"), SEMANTICS]
    for what, (one_value, other_value) in pairs.items():
        if one_value != other_value:
            surroundings.append({"what": what, "then": one_value, "now": other_value})
    return {"run_id": then.run_id, "identical": identical, "differences": found, "environment": surroundings}
