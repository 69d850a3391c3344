"""Which records W&B has been sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.spec.run_spec import RunSpec
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


def names_of_rows(specs: Sequence[RunSpec]) -> dict[str, dict[str, Any]]:
    """{run id: {"rows", "recipe"}} of the specs that experiments as they stand, without overrides, show."""
    from metaformer_ablate.spec.experiment import find_all
    from metaformer_ablate.spec.plan import plan

    wanted = {spec.with_seed(0).run_id for spec in specs}
    found: dict[str, dict[str, Any]] = {}
    for recipe in find_all("recipe"):
        for experiment in find_all("experiment"):
            try:
                chosen = plan(experiment, recipe)
            except RequestError:
                continue  # a file under work says nothing about records
            for row, spec in chosen.specs.items():
                if (family := spec.run_id) in wanted:
                    found.setdefault(family, {"rows": [], "recipe": recipe})["rows"].append(f"{experiment}/{row}")
    return {spec.run_id: found.get(spec.with_seed(0).run_id, {}) for spec in specs}
