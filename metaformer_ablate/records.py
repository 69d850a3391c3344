"""The store of records: write whole, read, list, as a pandas frame. Loads no torch.

A record is a folder `<results>/runs/<run_id>/`. It is prepared under a temporary name and renamed, so that a folder
with its name is whole, and `record.json` is written last in it. What does not check out is never a result: the store
names the folder in `problems` and goes on as if it were not there.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from metaformer_ablate.spec import RunSpec, digest, flatten
from metaformer_ablate.yaml_reader import RequestError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FORMAT = 1
STATUSES = ("ok", "diverged", "failed")
HISTORY_COLUMNS = ("epoch", "step", "lr", "train_loss", "val_loss", "val_top1", "val_top5", "seconds")
FRAME_COLUMNS = tuple(
    "run_id status top1 top5 loss at_chance params frozen_params macs macs_224 epochs images_seen seconds "
    "peak_memory_bytes device started data_fingerprint".split()
)
_REQUIRED = ("format", "run_id", "status", "metrics", "params", "frozen_params", "macs", "seconds", "data_fingerprint")


class StoreError(Exception):
    """The results folder cannot be written: full, read-only or gone. Exit code 1 in mid-sweep."""


@dataclass(frozen=True)
class Record:
    """What a run left behind. `data` is record.json; the other files are read when asked for."""

    folder: Path
    data: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.data["run_id"]

    @property
    def status(self) -> str:
        """ok, diverged or failed."""
        return self.data["status"]

    @property
    def top1(self) -> float | None:
        """Percent, at the last epoch, on the recipe's evaluation split; None unless the run is ok."""
        return (self.data["metrics"] or {}).get("top1") if self.status == "ok" else None

    def spec(self) -> dict[str, Any]:
        """The resolved spec, as plain values."""
        path = self.folder / "spec.yaml"
        text = path.read_text(encoding="utf-8")
        # The specs of a row differ in their seed alone, and reading YAML takes milliseconds: the rest is read once.
        seeds = re.findall(r"^seed: (\d+)$", text, re.MULTILINE)
        rest = re.sub(r"^seed: \d+\n", "", text, flags=re.MULTILINE) if len(seeds) == 1 else text
        return json.loads(_spec_json(rest, str(path))) | ({"seed": int(seeds[0])} if len(seeds) == 1 else {})

    def history(self) -> list[dict[str, float]]:
        """One mapping an epoch, with the columns of history.csv."""
        with (self.folder / "history.csv").open(newline="") as stream:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]

    def predictions(self) -> dict[str, np.ndarray]:
        """label, predicted and confidence, in the order of the evaluation split."""
        import numpy as np

        with np.load(self.folder / "predictions.npz", allow_pickle=False) as arrays:
            return dict(arrays)


@dataclass
class Store:
    """A results folder. `problems` collects a sentence for each run folder that is there but is no result."""

    path: Path
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    def folder(self, run_id: str) -> Path:
        return self.runs / run_id

    # Reading

    def read(self, run_id: str) -> Record | None:
        """The record of a run; None where there is none or it does not check out (then `problems` says why)."""
        folder = self.folder(run_id)
        if not folder.is_dir():
            return None
        problem, data = _check(folder, run_id)
        if problem:
            self.problems[run_id] = f"{folder}: {problem}; not counted as a result"
            return None
        assert data is not None
        return Record(folder, data)

    def ids(self) -> list[str]:
        """The names of all run folders, sorted."""
        if not self.runs.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self.runs) if re.fullmatch(r"[0-9a-f]{12}", entry.name))

    def __iter__(self) -> Iterator[Record]:
        for run_id in self.ids():
            if (record := self.read(run_id)) is not None:
                yield record

    def find(self, prefix: str) -> Record:
        """The record whose id begins with a prefix of 6 or more digits. Raises RequestError unless it is one run."""
        if not re.fullmatch(r"[0-9a-f]{6,12}", prefix):
            raise RequestError(f"run {prefix!r}: allowed: 6 to 12 hex digits of a run id")
        found = [run_id for run_id in self.ids() if run_id.startswith(prefix)]
        if len(found) != 1:
            several = f"begins {len(found)} run ids: {', '.join(found)}" if found else f"is no run in {self.runs}"
            raise RequestError(f"run {prefix!r} {several}")
        record = self.read(found[0])
        if record is None:
            raise RequestError(self.problems[found[0]])
        return record

    def frame(self, records: Iterable[Record] | None = None) -> pd.DataFrame:
        """One line a run, of all records or of those given: what came out, where it ran, what it set.

        Columns are FRAME_COLUMNS, `torch` (its version), `commit` and `dirty` (of this package), and every field of the
        resolved spec by its dotted path. The order of columns is the same for any records.
        """
        import pandas as pd

        lines, of_spec = [], dict.fromkeys(["seed"])
        for record in self if records is None else records:
            data = record.data
            line = {key: data.get(key) for key in FRAME_COLUMNS} | (data["metrics"] or {})
            line["torch"] = (data.get("versions") or {}).get("torch")
            line |= {key: (data.get("git") or {}).get(key) for key in ("commit", "dirty")}
            spec = flatten(record.spec(), lambda path, where=str(record.folder): where)  # type: ignore[misc]
            of_spec |= dict.fromkeys(spec)
            lines.append(line | spec)
        return pd.DataFrame(lines, columns=[*FRAME_COLUMNS, "torch", "commit", "dirty", *of_spec])

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
    ) -> Record:
        """Writes a record whole. One that is there already, failed or stale, is moved aside first.

        Raises StoreError where the folder cannot be written; nothing half-written stays under the run's name.
        """
        run_id = spec.run_id
        temporary = self.runs / f".{run_id}.{uuid4().hex[:12]}"  # several machines may write here
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            (temporary / "spec.yaml").write_text(_yaml(spec.to_dict()), encoding="utf-8")
            (temporary / "history.csv").write_text(_history(history), encoding="utf-8")
            if predictions is not None:
                import numpy as np

                with (temporary / "predictions.npz").open("wb") as stream:
                    np.savez_compressed(stream, **predictions)  # type: ignore[arg-type]
            if log is not None:
                (temporary / "log.txt").write_text(log, encoding="utf-8")
            data = {"format": FORMAT, "run_id": run_id, **data}
            sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
            data["checksums"] = {**sums, "record.json": digest(data)}
            with (temporary / "record.json").open("w", encoding="utf-8") as stream:
                json.dump(data, stream, indent=1, allow_nan=False)
                stream.write("\n")
                stream.flush()
                os.fsync(stream.fileno())
            self.set_aside(run_id)
            temporary.rename(self.folder(run_id))
        except OSError as error:
            what = {errno.ENOSPC: "the disk is full", errno.EROFS: "it is read-only"}.get(error.errno or 0)
            raise StoreError(f"{self.path}: the record of run {run_id} cannot be written: {what or error}") from error
        finally:  # after the rename there is nothing under this name
            shutil.rmtree(temporary, ignore_errors=True)
        self.problems.pop(run_id, None)
        return Record(self.folder(run_id), data)

    def set_aside(self, run_id: str) -> Path | None:
        """Moves a run's folder to `<results>/aside/`; where it went, or None where there was none."""
        folder = self.folder(run_id)
        if not folder.exists():
            return None
        aside = self.path / "aside"
        aside.mkdir(exist_ok=True)
        number = 1
        while (target := aside / f"{run_id}-{number}").exists():
            number += 1
        folder.rename(target)
        return target


@lru_cache(maxsize=4096)
def _spec_json(text: str, source: str) -> str:
    from metaformer_ablate.yaml_reader import parse

    return json.dumps(parse(text, source))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check(folder: Path, run_id: str) -> tuple[str | None, dict[str, Any] | None]:
    """What is wrong with a run folder, and its record.json where nothing is."""
    try:
        data = json.loads((folder / "record.json").read_text(encoding="utf-8"), parse_constant=_no_constant)
    except FileNotFoundError:
        return "half-written: it has no record.json", None
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
    if absent := [name for name in needed if not (folder / name).is_file()]:
        return f"half-written: {', '.join(absent)} is missing", None
    sums = data.get("checksums")
    if sums is None:  # written by other means: at least the spec has to be the one that the id names
        from metaformer_ablate.yaml_reader import YamlFile

        try:
            spec_id = digest(YamlFile(folder / "spec.yaml").data)[:12]
        except (RequestError, TypeError, ValueError) as error:
            return f"spec.yaml cannot be read: {error}", None
        return (None, data) if spec_id == run_id else (f"spec.yaml is of run {spec_id}", None)
    rest = {key: value for key, value in data.items() if key != "checksums"}
    if not isinstance(sums, dict) or digest(rest) != sums.get("record.json"):
        return "record.json was changed after it was written", None
    for name in needed:
        if _sha256(folder / name) != sums.get(name):
            return f"{name} was changed after it was written", None
    return None, data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _has_top1(metrics: Any) -> bool:
    top1 = metrics.get("top1") if isinstance(metrics, dict) else None
    return isinstance(top1, (int, float)) and not isinstance(top1, bool) and 0 <= top1 <= 100


def _yaml(tree: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None  # lists of numbers on one line, mappings one key a line
    yaml.width = 1000
    stream = StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def _history(rows: list[dict[str, float]]) -> str:
    stream = StringIO()
    writer = csv.DictWriter(stream, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
