"""Whether a record is whole and unchanged."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import shown, unknown
from metaformer_ablate.records.checkpoints import is_checkpoint
from metaformer_ablate.records.record import FORMAT, LARGEST, LARGEST_OF_TASK, STATUSES
from metaformer_ablate.records.record_shape import RecordShape
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.settings.typed_files import first_problem, read_json, unfit
from metaformer_ablate.system.files import read_regular
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import DEFAULT, TASKS, get_task

_REQUIRED = tuple(
    "format run_id status reason metrics params frozen_params macs seconds device versions git data_fingerprint".split()
)


def _unfinished(folder: Path) -> str | None:
    """What is wrong with a run folder without record.json; nothing where there is none, or its run has not ended."""
    try:
        results = [name for name in os.listdir(folder) if not name.startswith(".") and not is_checkpoint(name)]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return "half-written: it has no record.json" if results else None


def file_digest(path: str | Path) -> str:
    return hashlib.sha256(read_regular(path, LARGEST_OF_TASK)).hexdigest()


def check_record(folder: Path, run_id: str) -> tuple[str | None, dict[str, Any] | None]:
    """What is wrong with a run folder, and its record.json where nothing is; neither where the run has not ended."""
    home = str(folder)  # joining paths would take longer than reading the files
    try:
        data = read_json(f"{home}/record.json", LARGEST["record.json"])
    except (FileNotFoundError, NotADirectoryError):
        return _unfinished(folder), None
    except (OSError, ValueError) as error:
        return f"record.json cannot be read: {first_problem(error)}", None
    if not isinstance(data, dict) or (missing := [key for key in _REQUIRED if key not in data]):
        return f"record.json lacks {', '.join(missing) if isinstance(data, dict) else 'its keys'}", None
    if data["format"] != FORMAT or data["status"] not in STATUSES:
        return f"record.json has format {shown(data['format'])} and status {shown(data['status'])}", None
    if data["run_id"] != run_id:
        return f"record.json is of run {str(data['run_id'])[:80]}", None
    if misfit := unfit(RecordShape, data):
        return f"record.json: {misfit}", None
    if data.get("task", DEFAULT) not in TASKS:
        return f"record.json: {unknown('task', data['task'], TASKS)}", None
    task = get_task(data.get("task", DEFAULT))
    if data["status"] == "ok" and (misfit := _wrong_metrics(task, data["metrics"])):
        return f"record.json: {misfit}", None
    needed = ["spec.yaml", "history.csv", *(task.files if data["status"] == "ok" else ())]
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
        except FileNotFoundError:
            return f"half-written: {name} is missing", None
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}", None
    return None, data


def _wrong_metrics(task: Task, metrics: dict[str, float] | None) -> str | None:
    """What is wrong with the metrics of an ok record: it has the reported one, and percentages are from 0 to 100."""
    name = task.reported.name
    if metrics is None or name not in metrics:
        return f"metrics is {shown(metrics)}; allowed: numbers by name, {name} among them"
    for metric in task.metrics:
        if metric.unit == "%" and not 0 <= metrics.get(metric.name, 0) <= 100:
            return f"metrics.{metric.name} is {shown(metrics[metric.name])}; allowed: a number from 0 to 100"
    return None
