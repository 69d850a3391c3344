"""The runs behind the report: records by the spec that they have, and which of them are of other data than today's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.layers import digest, flatten
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import task_of


@dataclass
class SpecRuns:
    """A resolved spec, its seed apart, and the records of it by seed."""

    key: str  # 12 hex digits of the SHA-256 of its canonical JSON
    spec: dict[str, Any]
    records: dict[int, Record] = field(default_factory=dict)
    stale: set[int] = field(default_factory=set)  # the seeds whose records are of other data than today's

    def status(self, seed: int) -> str:
        """As `RunState` has it."""
        return "stale" if seed in self.stale else self.records[seed].status

    @property
    def task(self) -> Task:
        return task_of(self.spec)

    def settings(self) -> dict[str, str]:
        """Dotted path to value, as JSON, of every field."""
        return {path: json.dumps(value) for path, value in flatten(self.spec, lambda path: "spec").items()}


def key_of(spec: Mapping[str, Any]) -> str:
    return digest({name: value for name, value in spec.items() if name != "seed"})[:12]


def read_variants(records: Mapping[str, Record], store: Store) -> dict[str, SpecRuns]:
    """Records by spec. One whose spec is not that of its id is no result, and `store.problems` says so."""
    found: dict[str, SpecRuns] = {}
    lines: dict[str, dict[str, Any]] = {}
    for run_id, record in records.items():
        try:
            spec = _spec(record, lines)
            right = digest(spec)[:12] == run_id and isinstance(spec["seed"], int)
        except RequestError as error:
            store.problems[run_id] = f"{error}; not counted as a result"
            continue
        except (KeyError, TypeError, ValueError) as error:
            store.problems[run_id] = f"{record.folder}: spec.yaml cannot be read: {error}; not counted as a result"
            continue
        if not right:
            store.problems[run_id] = f"{record.folder}: spec.yaml is of another run; not counted as a result"
            continue
        key, seed = key_of(spec), spec.pop("seed")
        found.setdefault(key, SpecRuns(key, spec)).records[seed] = record
    for variant in found.values():
        variant.records = dict(sorted(variant.records.items()))
    return found


def mark_stale(variants: Iterable[SpecRuns], folder: DataFolder, readers: Mapping[str, str]) -> None:
    """Marks the records of other data than today's. A spec does not say `data.reader`: `readers` has it by its key."""
    today: dict[tuple[str, str | None], str | None] = {}
    for variant in variants:
        key = variant.spec["data"]["name"], readers.get(variant.key)
        if key[0] in DATASETS and key not in today:
            today[key] = folder.fingerprint(*key)
        for seed, record in variant.records.items():
            if today.get(key) and record.data["data_fingerprint"] not in (None, today[key]):
                variant.stale.add(seed)


def _spec(record: Record, lines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The spec of a record. Its file is read line by line, as the store writes it, and most lines were met before:
    a YAML reader takes 5 ms a file, this 0.1. The id tells whether it was read right; else the reader is asked."""
    tree: dict[str, Any] = {}
    section = tree
    try:
        for line in (record.folder / "spec.yaml").read_text(encoding="utf-8").splitlines():
            if line.endswith(":") and not line.startswith(" "):
                section = tree[line[:-1]] = {}
                continue
            if line not in lines:
                lines[line] = parse(line, "spec.yaml")
            (section if line.startswith(" ") else tree).update(lines[line])
        if digest(tree)[:12] == record.run_id:
            return tree
    except (OSError, TypeError, ValueError):
        pass
    return record.spec()
