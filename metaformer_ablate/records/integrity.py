"""Whether a record is whole and unchanged."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from metaformer_ablate.records.checkpoints import is_checkpoint
from metaformer_ablate.records.record import FORMAT, LARGEST, STATUSES
from metaformer_ablate.records.record_shape import RecordShape
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.settings.typed_files import first_problem, read_json, unfit
from metaformer_ablate.system.files import read_regular

_REQUIRED = tuple(
    "format run_id status reason metrics params frozen_params macs seconds device versions git data_fingerprint".split()
)


def _unfinished(folder: Path) -> str | None:
    """What is wrong with a run folder without record.json; nothing where it holds a run that has not ended."""
    try:
        results = [name for name in os.listdir(folder) if not name.startswith(".") and not is_checkpoint(name)]
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return "half-written: it has no record.json" if results else None


def file_digest(path: str | Path) -> str:
    return hashlib.sha256(read_regular(path, max(LARGEST.values()))).hexdigest()


def check_record(folder: Path, run_id: str) -> tuple[str | None, dict[str, Any] | None]:
    """What is wrong with a run folder, and its record.json where nothing is; neither where the run has not ended."""
    home = str(folder)  # joining paths would take longer than reading the files
    try:
        data = read_json(f"{home}/record.json", LARGEST["record.json"])
    except FileNotFoundError:
        return _unfinished(folder), None
    except (OSError, ValueError) as error:
        return f"record.json cannot be read: {first_problem(error)}", None
    if not isinstance(data, dict) or (missing := [key for key in _REQUIRED if key not in data]):
        return f"record.json lacks {', '.join(missing) if isinstance(data, dict) else 'its keys'}", None
    if data["format"] != FORMAT or data["status"] not in STATUSES:
        shown = [repr(data[key])[:80] for key in ("format", "status")]
        return f"record.json has format {shown[0]} and status {shown[1]}", None
    if data["run_id"] != run_id:
        return f"record.json is of run {str(data['run_id'])[:80]}", None
    if data["status"] == "ok" and not _has_top1(data["metrics"]):
        return f"record.json has the metrics {str(data['metrics'])[:200]}", None
    if misfit := unfit(RecordShape, data):
        return f"record.json: {misfit}", None
    needed = ["spec.yaml", "history.csv", *(["predictions.npz"] if data["status"] == "ok" else [])]
    if absent := [name for name in needed if not os.path.isfile(f"{home}/{name}")]:
        return f"half-written: {', '.join(absent)} is missing", None
    sums = data.get("checksums")
    if sums is None:  # every record of this format was written with them
        return "record.json has no checksums: it was changed after it was written", None
    rest = {key: value for key, value in data.items() if key != "checksums"}
    if not isinstance(sums, dict) or digest(rest) != sums.get("record.json"):
        return "record.json was changed after it was written", None
    for name in needed:
        try:
            if file_digest(f"{home}/{name}") != sums.get(name):
                return f"{name} was changed after it was written", None
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}", None
    return None, data


def _has_top1(metrics: Any) -> bool:
    top1 = metrics.get("top1") if isinstance(metrics, dict) else None
    return isinstance(top1, (int, float)) and not isinstance(top1, bool) and 0 <= top1 <= 100
