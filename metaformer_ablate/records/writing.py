"""The files of a record, as they are written and copied."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer_ablate.records.integrity import file_digest
from metaformer_ablate.records.record import FORMAT, PREDICTIONS
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.registry import DEFAULT, task_of

if TYPE_CHECKING:
    import numpy as np


def write_files(
    folder: Path,
    spec: RunSpec,
    data: dict[str, Any],
    history: list[dict[str, float]],
    predictions: dict[str, np.ndarray] | None,
    log: str | None,
) -> dict[str, Any]:
    """Writes the files of a record, record.json last and onto the disk; returns what record.json holds."""
    tree = spec.to_dict()
    task = task_of(tree)
    (folder / "spec.yaml").write_text(_yaml(tree), encoding="utf-8")
    columns = [name for name in task.history_columns if not history or name in history[0]]
    (folder / "history.csv").write_text(_history(history, columns), encoding="utf-8")
    if predictions is not None:
        import numpy as np

        with (folder / PREDICTIONS).open("wb") as stream:
            np.savez_compressed(stream, **predictions)  # type: ignore[arg-type]
    if log is not None:
        (folder / "log.txt").write_text(log, encoding="utf-8")
    of_task = {} if task.name == DEFAULT else {"task": task.name}
    data = {"format": FORMAT, "run_id": spec.run_id, **of_task, **data}
    sums = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
    data["checksums"] = {**sums, "record.json": digest(data)}
    with (folder / "record.json").open("w", encoding="utf-8") as text:
        json.dump(data, text, indent=1, allow_nan=False)
        text.write("\n")
        text.flush()
        os.fsync(text.fileno())
    return data


def copy_files(folder: Path, to: Path, wanted: Sequence[str]) -> list[str]:
    """Copies the wanted files that are regular ones and follows no link; returns the names of all else that is there.

    A link may lead to what its owner never meant to give away.
    """
    left_out = []
    for name in sorted(os.listdir(folder)):
        try:
            if name not in wanted or not stat.S_ISREG(os.lstat(folder / name).st_mode):
                raise OSError
            file = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            left_out.append(name)
            continue
        with os.fdopen(file, "rb") as source, (to / name).open("xb") as target:
            shutil.copyfileobj(source, target)
    return left_out


def _yaml(tree: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None  # lists of numbers on one line, mappings one key per line
    yaml.width = 1000
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def _history(rows: list[dict[str, float]], columns: Sequence[str]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
