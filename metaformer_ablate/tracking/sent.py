"""Which records W&B has been sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.system.cache import write_cache


def marks_folder(store: Store) -> Path:
    """Where W&B's files lie, unless WANDB_DIR names another folder, and a file for each run that W&B was told of."""
    return store.path / ".wandb"


def marks(store: Store, run_id: str) -> dict[str, dict[str, str]]:
    """{project: where the record of a run is in it}: id, project, mode (online or offline) and the checksum."""
    try:
        tree = read_json(marks_folder(store) / f"{run_id}.json")
        return {key: value for key, value in tree.items() if isinstance(value, dict)} if isinstance(tree, dict) else {}
    except (OSError, ValueError):
        return {}


def mark_sent(store: Store, record: Record, where: Mapping[str, str]) -> None:
    known = marks(store, record.run_id) | {where["project"]: {**where, "checksum": record.checksum}}
    write_cache(marks_folder(store) / f"{record.run_id}.json", json.dumps(known, indent=1))


def is_sent(store: Store, record: Record, how: Mapping[str, Any]) -> bool:
    """Whether a record is in a project. What lies in offline files counts as sent only while one is offline."""
    mark = marks(store, record.run_id).get(how["project"])
    if mark is None or mark.get("checksum") != record.checksum:
        return False
    return mark.get("mode") == "online" or how["mode"] == "offline"
