"""The settings that there are, by dotted path, and the check of a path. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from metaformer_ablate.errors import RequestError, nearest, shown
from metaformer_ablate.models.presets import NAMED, SIZES
from metaformer_ablate.settings import layers
from metaformer_ablate.settings.schema import key_of
from metaformer_ablate.spec.run_spec import SECTION_NAMES, SECTIONS
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import TASKS, all_tasks


def _section_of(annotation: Any) -> type[BaseModel] | None:
    kinds = [k for k in (annotation, *get_args(annotation)) if isinstance(k, type) and issubclass(k, BaseModel)]
    return kinds[0] if kinds else None


@cache  # a command resolves thousands of specs
def _leaves(model: type[BaseModel], prefix: str) -> Mapping[str, FieldInfo]:
    found: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        path = f"{prefix}.{key_of(name, info)}"
        if (inner := _section_of(info.annotation)) is not None:
            found.update(_leaves(inner, path))
        else:
            found[path] = info
    return found


# The settings of every task's specs.
LEAVES: dict[str, FieldInfo] = {p: info for name, cls in SECTIONS.items() for p, info in _leaves(cls, name).items()}

# They follow from model.init_from and model.class.
for _follows in ("init_sha256", "init_averaged", "init_run", "class_place"):
    del LEAVES[f"model.{_follows}"]


def of_open_mapping(path: str) -> str | None:
    """The setting that a path is an entry of, where that takes entries of any name; None for any other path.

    Each entry is a setting by itself: a row changes one of them, with whatever value it has.
    """
    parent, _, name = path.rpartition(".")
    return parent if parent == "model.args" and name else None


# Short for other fields; none of them stays in the resolved spec.
SHORTHANDS = {
    "model.name": "a named model: " + ", ".join(NAMED),
    "model.size": f"a size: {', '.join(SIZES)}; it brings drop_path and layer_scale, too",
    "train.epoch_factor": "a number above 0: the recipe's epochs or steps, and its milestones, times it",
}


# Words that are easily taken for settings, and the options that they are.
_OPTIONS = {"seed": "--seeds N", "seeds": "--seeds N", "recipe": "--recipe NAME", "results": "--results DIR"}


def task_leaves(task: Task) -> dict[str, FieldInfo]:
    """The settings `task.*` of a task; `task.name` is one of every task."""
    found = dict(_leaves(task.settings, "task")) if task.settings is not None else {}
    found.pop("task.semantics", None)  # raised by hand
    return found | {"task.name": Field(description="one of: " + ", ".join(TASKS))}


def all_leaves() -> dict[str, FieldInfo]:
    """The settings of the specs of all tasks."""
    found = dict(LEAVES)
    for task in all_tasks():
        found |= task_leaves(task)
    return found


def check_path(path: str, where: Callable[[str], str], task: Task) -> None:
    """Raises RequestError unless a dotted path is a setting of a task's specs."""
    if path in LEAVES or path in SHORTHANDS or of_open_mapping(path) or path in task_leaves(task):
        return
    at, leaves = where(path), LEAVES | task_leaves(task)
    known = [*LEAVES, *SHORTHANDS, *task_leaves(task)]
    inside = [p for p in known if p.startswith(path + ".")]
    if inside:
        raise RequestError(f"{at}: {path} must be a mapping with: {', '.join(p[len(path) + 1 :] for p in inside)}")
    parent = path.rpartition(".")[0]
    if parent in leaves or of_open_mapping(parent):
        described = leaves[parent].description if parent in leaves else "a value, which may be a mapping"
        raise RequestError(f"{at}: {parent} is set as a whole, to {described}")
    siblings = [p for p in known if p.rpartition(".")[0] == parent]
    home = f"{parent} of {task.name}" if parent == "task" else parent
    allowed = f"; allowed in {home}: {', '.join(p[len(parent) + 1 :] for p in siblings)}" if siblings else ""
    if not siblings:
        allowed = f"; settings begin with {', '.join(f'{s}.' for s in SECTION_NAMES)}"
    if path in _OPTIONS:
        allowed += f"; did you mean the option {_OPTIONS[path]}?"
    raise RequestError(f"{at}: unknown key {shown(path)}{nearest(path, known)}{allowed}")


def flatten(tree: Mapping[Any, Any], where: Callable[[str], str]) -> dict[str, Any]:
    """Settings by dotted path from nested or dotted keys."""
    return layers.flatten(tree, where, _Whole())


class _Whole:
    """The paths whose values may be mappings."""

    def __contains__(self, path: object) -> bool:
        path = str(path)
        if path in LEAVES:
            return path != "model.args"
        return bool(of_open_mapping(path)) or any(path in task_leaves(task) for task in all_tasks())
