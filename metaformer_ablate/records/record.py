"""A record: what a run left behind."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from metaformer_ablate.errors import RequestError
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.system.files import read_regular
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import DEFAULT, get_task

if TYPE_CHECKING:
    import numpy as np


FORMAT = 1


STATUSES = ("ok", "diverged", "failed")


# The files of a record of any task, and what a run may have left beside it; the largest that is read of each, in bytes.
LARGEST = {"spec.yaml": 2**18, "history.csv": 2**26, "log.txt": 2**26, "record.json": 2**24}


LARGEST_OF_TASK = 2**30  # of a file that the task names


PREDICTIONS = "predictions.npz"


LATER_PACKAGES = ("timm", "Pillow", "faster-coco-eval")  # that older records name no version of


class StoreError(Exception):
    """The results folder cannot be written: full, read-only or gone. Exit code 1 in mid-sweep."""

    @classmethod
    def of(cls, place: Path, what: str, error: OSError) -> StoreError:
        why = {errno.ENOSPC: "the disk is full", errno.EROFS: "it is read-only", errno.ENOENT: "the folder is gone"}
        return cls(f"{place}: {what} cannot be written: {why.get(error.errno or 0, error)}")


@dataclass(frozen=True)
class Record:
    """What a run left behind. `data` is record.json; the other files are read when asked for."""

    folder: Path
    data: dict[str, Any]
    name: str | None = field(default=None, compare=False)  # "table5/identity seed 0", where it was looked up

    @property
    def run_id(self) -> str:
        return self.data["run_id"]

    @property
    def status(self) -> str:
        """ok, diverged or failed."""
        return self.data["status"]

    @property
    def task(self) -> Task:
        """What the run trained; records of classification do not name it."""
        return get_task(self.data.get("task", DEFAULT))

    def value(self, metric: str) -> float | None:
        """A metric by name, at the last epoch, on the recipe's evaluation split; None unless the run is ok."""
        if self.status != "ok":
            return None
        if any(derived.name == metric for derived in self.task.derived):
            return _derived(self.folder, self.checksum, self.task.name)[metric]
        return (self.data["metrics"] or {}).get(metric)

    @property
    def checksum(self) -> str:
        """Tells this record from another one of the same run."""
        return digest(self.data)

    def spec(self) -> dict[str, Any]:
        """The resolved spec, as plain values. Raises RequestError where the file does not hold that of this run."""
        try:
            text = read_regular(f"{self.folder}/spec.yaml", LARGEST["spec.yaml"]).decode()
            spec = self._spec(text)
            whole = all(isinstance(spec[section], dict) for section in ("model", "data", "train"))
            right = whole and type(spec["seed"]) is int and digest(spec)[:12] == self.run_id
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise RequestError(f"{self.folder}: spec.yaml cannot be read: {error}") from None
        if not right:
            raise RequestError(f"{self.folder}: spec.yaml is of another run")
        return spec

    def _spec(self, text: str) -> dict[str, Any]:
        # The specs of a row differ in their seed alone, and reading YAML takes milliseconds: the rest is read once.
        seeds = re.findall(r"^seed: (\d+)$", text, re.MULTILINE)
        rest = re.sub(r"^seed: \d+\n", "", text, flags=re.MULTILINE) if len(seeds) == 1 else text
        return json.loads(_spec_json(rest)) | ({"seed": int(seeds[0])} if len(seeds) == 1 else {})

    def history(self) -> list[dict[str, float]]:
        """One mapping per epoch, with the columns of history.csv: those of optional metrics may be lacking.

        Raises RequestError where the file has no history.
        """
        path = f"{self.folder}/history.csv"
        try:
            text = read_regular(path, LARGEST["history.csv"]).decode()
            names, *lines = [line for line in csv.reader(io.StringIO(text, newline="")) if line] or [[]]
            rows = [dict(zip(names, map(float, line), strict=True)) for line in lines]
        except (OSError, ValueError, csv.Error) as error:
            raise RequestError(f"{path}: cannot be read: {error}") from None
        allowed = {*names, *self.task.optional_columns}
        if absent := [name for name in self.task.history_columns if name not in allowed]:
            raise RequestError(f"{path}: lacks the column {absent[0]}")
        if not all(math.isfinite(value) for row in rows for value in row.values()):
            raise RequestError(f"{path}: holds a number that is not finite")
        return rows

    def predictions(self) -> dict[str, np.ndarray]:
        """The arrays that the task keeps of the evaluation, by name.

        Raises RequestError where the file cannot be read or holds what the task would not write.
        """
        import numpy as np

        path = f"{self.folder}/{PREDICTIONS}"
        try:
            content = read_regular(path, LARGEST_OF_TASK)
            with ZipFile(io.BytesIO(content)) as archive:
                if sum(member.file_size for member in archive.infolist()) > LARGEST_OF_TASK:
                    raise ValueError("it unpacks to more than is read")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                found = dict(arrays)
        except Exception as error:  # whatever a damaged archive makes of zipfile and numpy
            raise RequestError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
        try:
            self.task.part("predictions").check(found)
        except ValueError as error:
            raise RequestError(f"{path}: {error}") from None
        return found


@lru_cache(maxsize=4096)
def _derived(folder: Path, checksum: str, task: str) -> Mapping[str, float]:
    """The derived metrics of a record, whose predictions are read once."""
    record = Record(folder, {"task": task})
    return record.task.part("predictions").derive(record.predictions())


@lru_cache(maxsize=4096)
def _spec_json(text: str) -> str:
    from metaformer_ablate.settings.yaml_reader import parse

    return json.dumps(parse(text, "spec.yaml"))
