"""The store of records: write whole, read, list, as a pandas frame. Loads no torch.

A record is a folder `<results>/runs/<run_id>/`. It is prepared under a temporary name and renamed, so that a folder
with its name is whole, and `record.json` is written last in it. What does not check out is never a result: the store
names the folder in `problems` and goes on as if it were not there.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.checkpoints import FINAL, LAST
from metaformer_ablate.records.integrity import check_record
from metaformer_ablate.records.record import (
    LARGEST,
    STATUSES,
    Record,
    StoreError,
)
from metaformer_ablate.records.writing import copy_files, write_files
from metaformer_ablate.settings.layers import flatten
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import get_task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


_FRAME_KEYS = tuple(
    "run_id status at_chance params frozen_params macs macs_224 epochs images_seen seconds "
    "peak_memory_bytes device started data_fingerprint".split()
)


def frame_columns(*tasks: Task) -> tuple[str, ...]:
    """The columns that `Store.frame` begins with: id, status, the metrics of the tasks, what the run took and where."""
    metrics = dict.fromkeys(metric.name for task in tasks for metric in task.metrics)
    return (*_FRAME_KEYS[:2], *metrics, *_FRAME_KEYS[2:])


@dataclass
class Store:
    """A results folder. `problems` collects a sentence for each run folder that is there but is no result."""

    path: Path
    problems: dict[str, str] = field(default_factory=dict)

    @classmethod
    def choose(cls, option: str | None, called: str = "--results") -> Store:
        """What is given, else $ABLATE_RESULTS, else the folder `results`. Raises RequestError where it is no folder."""
        path = Path(option or os.environ.get("ABLATE_RESULTS") or "results")
        named = f"{called if option else 'ABLATE_RESULTS'} is {str(path)!r}"
        try:
            if not stat.S_ISDIR(path.stat().st_mode):
                raise RequestError(f"{named}, which is not a folder")
        except FileNotFoundError:
            pass  # made when a record is written
        except OSError as error:  # a loop of links, or a name that is too long
            raise RequestError(f"{named}, which cannot be read: {error.strerror}") from None
        return cls(path)

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def aside(self) -> Path:
        """Where runs lie that were taken out."""
        return self.path / "aside"

    def folder(self, run_id: str) -> Path:
        return self.runs / run_id

    # Reading

    def read(self, run_id: str) -> Record | None:
        """The record of a run; None where there is none or it does not check out (then `problems` says why)."""
        folder = self.folder(run_id)
        problem, data = check_record(folder, run_id)
        if problem:
            self.problems[run_id] = f"{folder}: {problem}; not counted as a result"
        return None if data is None or problem else Record(folder, data)

    def ids(self) -> list[str]:
        """The names of all run folders, sorted."""
        if not self.runs.is_dir():
            return []
        try:
            return sorted(name for name in os.listdir(self.runs) if re.fullmatch(r"[0-9a-f]{12}", name))
        except OSError as error:
            raise RequestError(f"{self.runs}: cannot be read: {error.strerror}") from None

    def __iter__(self) -> Iterator[Record]:
        for run_id in self.ids():
            if (record := self.read(run_id)) is not None:
                yield record

    def counts(self) -> dict[str, list[str]]:
        """Run ids by the status that their record.json names, `interrupted` where there is none but a checkpoint.

        For an overview of many records: their files are not checked.
        """
        found: dict[str, list[str]] = {}
        for run_id in self.ids():
            try:
                status = read_json(f"{self.folder(run_id)}/record.json", LARGEST["record.json"])["status"]
                if status not in STATUSES:
                    status = "damaged"
            except FileNotFoundError:
                if not (self.folder(run_id) / LAST).exists():
                    continue
                status = "interrupted"
            except (OSError, ValueError, TypeError, KeyError):
                status = "damaged"
            found.setdefault(status, []).append(run_id)
        return found

    def find(self, prefix: str) -> Record:
        """The record whose id begins with a prefix of 6 or more digits. Raises RequestError unless it is one run."""
        run_id = self.find_id(prefix)
        record = self.read(run_id)
        if record is None:
            raise RequestError(self.problems.get(run_id, f"run {run_id} has no record yet in {self.runs}"))
        return record

    def find_id(self, prefix: str) -> str:
        """The run folder whose name begins with a prefix of 6 or more digits, whether its record checks out or not."""
        if not re.fullmatch(r"[0-9a-f]{6,12}", prefix):
            raise RequestError(f"{prefix!r} is not a run id (6 to 12 hex digits; `ablate table ... --runs` lists them)")
        found = [run_id for run_id in self.ids() if run_id.startswith(prefix)]
        if len(found) != 1:
            several = f"begins {len(found)} run ids: {', '.join(found)}" if found else f"is no run in {self.runs}"
            raise RequestError(f"run {prefix!r} {several}")
        return found[0]

    def frame(self, records: Iterable[Record] | None = None) -> pd.DataFrame:
        """One line per run, of all records or of those given: what came out, where it ran, what it set.

        Columns are `frame_columns` of the records' tasks, `torch` (its version), `commit` and `dirty` (of this
        package), and every field of the resolved spec by its dotted path. The order of columns is the same for any
        records of a task. A record whose spec cannot be read is left out, and `problems` says why.
        """
        import pandas as pd

        tasks = {}
        lines, of_spec = [], dict.fromkeys(["seed"])
        for record in self if records is None else records:
            data = record.data
            try:
                spec = flatten(record.spec(), lambda path, where=str(record.folder): where)  # type: ignore[misc]
            except RequestError as error:
                self.problems[record.run_id] = f"{error}; left out"
                continue
            task = tasks[record.task.name] = record.task
            line = {key: data.get(key) for key in _FRAME_KEYS}
            line |= {metric.name: record.value(metric.name) for metric in task.metrics}
            line["torch"] = (data.get("versions") or {}).get("torch")
            line |= {key: (data.get("git") or {}).get(key) for key in ("commit", "dirty")}
            of_spec |= dict.fromkeys(spec)
            lines.append(line | spec)
        return pd.DataFrame(
            lines, columns=[*frame_columns(*tasks.values() or [get_task()]), "torch", "commit", "dirty", *of_spec]
        )

    # Writing

    def check_writable(self) -> None:
        """Raises RequestError unless records can be written here."""
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            probe = self.runs / f".probe.{os.getpid()}"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise RequestError(f"--results {self.path}: cannot be written: {error.strerror}") from None

    def write(
        self,
        spec: RunSpec,
        data: dict[str, Any],
        history: list[dict[str, float]],
        predictions: dict[str, np.ndarray] | None = None,
        log: str | None = None,
        checkpoint: Path | None = None,
    ) -> Record:
        """Writes a record whole, with a checkpoint beside it if one is given.

        The run's folder, which holds its checkpoints while it trains, gives way. A record in it, failed or stale, is
        moved aside; where it is a result already, as when two processes took the run over from each other, the first
        one stands and is returned. Raises StoreError where the folder cannot be written; nothing half-written stays
        under the run's name.
        """
        run_id = spec.run_id
        temporary = self.runs / f".{run_id}.{uuid4().hex[:12]}"  # several machines may write here
        worked_in = temporary.with_suffix(".work")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            data = write_files(temporary, spec, data, history, predictions, log)
            if checkpoint is not None:
                checkpoint.rename(temporary / LAST)
            if (first := self.read(run_id)) is not None and first.status != "failed":
                return first
            if (self.folder(run_id) / "record.json").exists():
                self.set_aside(run_id)
            elif self.folder(run_id).exists():
                self.folder(run_id).rename(worked_in)
            temporary.rename(self.folder(run_id))
        except OSError as error:
            raise StoreError.of(self.path, f"the record of run {run_id}", error) from error
        finally:  # after the renames only checkpoints are left under these names
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(worked_in, ignore_errors=True)
        self.problems.pop(run_id, None)
        return Record(self.folder(run_id), data)

    def adopt(self, record: Record) -> list[str]:
        """Brings in a record of another results folder, whole or not at all; one of ours gives way to it, aside.

        Of the files there only those of a record are copied, and only regular ones. Returns the names that were left
        out. Raises RequestError where what is left is no whole record, StoreError where ours cannot be written.
        """
        temporary = self.runs / f".{record.run_id}.{uuid4().hex[:12]}"
        try:
            temporary.mkdir()
            left_out = copy_files(record.folder, temporary, (*LARGEST, *record.task.files, LAST, FINAL))
            problem, data = check_record(temporary, record.run_id)
            if problem or data != record.data:
                links = f" (left out: {', '.join(left_out)})" if left_out else ""
                why = (problem or "it has no record.json").replace(f"{temporary}/", "")
                raise RequestError(f"{record.folder}: without links {why}{links}")
            self.set_aside(record.run_id)
            temporary.rename(self.folder(record.run_id))
        except OSError as error:
            raise StoreError.of(self.path, f"the record of run {record.run_id}", error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return left_out

    def set_aside(self, run_id: str) -> Path | None:
        """Moves a run's folder to `<results>/aside/`; where it went, or None where there was none.

        Raises StoreError where it cannot be moved.
        """
        folder = self.folder(run_id)
        if not folder.exists():
            return None
        try:
            self.aside.mkdir(exist_ok=True)
            number = 1
            while (target := self.aside / f"{run_id}-{number}").exists():
                number += 1
            folder.rename(target)
        except OSError as error:
            raise StoreError.of(self.path, f"{self.aside.name}/{run_id}", error) from error
        return target

    def take_back(self, folder: Path, run_id: str) -> None:
        """Moves a folder that `set_aside` moved back to its run, which has none. Raises StoreError where it cannot."""
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            folder.rename(self.folder(run_id))
        except OSError as error:
            raise StoreError.of(self.path, f"run {run_id}", error) from error
