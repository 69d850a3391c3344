"""Whether a record is whole and unchanged."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.checkpoints import is_checkpoint
from metaformer_ablate.records.record import FORMAT, STATUSES
from metaformer_ablate.settings.layers import digest

_REQUIRED = ("format", "run_id", "status", "metrics", "params", "frozen_params", "macs", "seconds", "data_fingerprint")


def _sha256(path: str | Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def _check(folder: Path, run_id: str) -> tuple[str | None, dict[str, Any] | None]:
    """What is wrong with a run folder, and its record.json where nothing is; neither where the run has not ended."""
    home = str(folder)  # joining paths would take longer than reading the files
    try:
        with open(f"{home}/record.json", "rb") as stream:
            data = json.loads(stream.read(), parse_constant=_no_constant)
    except FileNotFoundError:
        results = [name for name in os.listdir(folder) if not name.startswith(".") and not is_checkpoint(name)]
        return "half-written: it has no record.json" if results else None, None
    except (OSError, ValueError) as error:
        return f"record.json cannot be read: {error}", None
    if not isinstance(data, dict) or (missing := [key for key in _REQUIRED if key not in data]):
        return f"record.json lacks {', '.join(missing) if isinstance(data, dict) else 'its keys'}", None
    if data["format"] != FORMAT or data["status"] not in STATUSES:
        return f"record.json has format {data['format']!r} and status {data['status']!r}", None
    if data["run_id"] != run_id:
        return f"record.json is of run {data['run_id']}", None
    if data["status"] == "ok" and not _has_top1(data["metrics"]):
        return f"record.json has the metrics {data['metrics']!r}", None
    needed = ["spec.yaml", "history.csv", *(["predictions.npz"] if data["status"] == "ok" else [])]
    if absent := [name for name in needed if not os.path.isfile(f"{home}/{name}")]:
        return f"half-written: {', '.join(absent)} is missing", None
    sums = data.get("checksums")
    if sums is None:  # written by other means: at least the spec has to be the one that the id names
        from metaformer_ablate.settings.yaml_reader import YamlFile

        try:
            spec_id = digest(YamlFile(folder / "spec.yaml").data)[:12]
        except (RequestError, TypeError, ValueError) as error:
            return f"spec.yaml cannot be read: {error}", None
        return (None, data) if spec_id == run_id else (f"spec.yaml is of run {spec_id}", None)
    rest = {key: value for key, value in data.items() if key != "checksums"}
    if not isinstance(sums, dict) or digest(rest) != sums.get("record.json"):
        return "record.json was changed after it was written", None
    for name in needed:
        if _sha256(f"{home}/{name}") != sums.get(name):
            return f"{name} was changed after it was written", None
    return None, data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _has_top1(metrics: Any) -> bool:
    top1 = metrics.get("top1") if isinstance(metrics, dict) else None
    return isinstance(top1, (int, float)) and not isinstance(top1, bool) and 0 <= top1 <= 100
