"""The tasks by name. A further task is one folder and one line here. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.tasks.base import Metric, Task

DEFAULT = "classification"  # of a spec without the section `task`

# name -> module:object
TASKS: dict[str, str] = {
    "classification": "metaformer_ablate.tasks.classification.task:TASK",
    "segmentation": "metaformer_ablate.tasks.segmentation.task:TASK",
    "detection": "metaformer_ablate.tasks.detection.task:TASK",
}


def get_task(name: str = DEFAULT) -> Task:
    """A task by name. Raises RequestError for an unknown one."""
    if name not in TASKS:
        raise RequestError(unknown("task", name, TASKS))
    module, _, target = TASKS[name].partition(":")
    return getattr(import_module(module), target)


def all_tasks() -> list[Task]:
    return [get_task(name) for name in TASKS]


def task_of(spec: Mapping[str, Any] | Any) -> Task:
    """The task of a spec: a RunSpec, or the plain values of one."""
    section = spec.get("task") if isinstance(spec, Mapping) else spec.task
    if section is None:
        return get_task()
    return get_task(section["name"] if isinstance(section, Mapping) else section.name)


def part_of(spec: Mapping[str, Any], part: str, what: str) -> ModuleType:
    """A part that not every task has, of the task of a spec. Raises RequestError where the task lacks it."""
    task = task_of(spec)
    found = task.optional_part(part)
    if found is None:
        having = [other.name for other in all_tasks() if other.optional_part(part) is not None]
        raise RequestError(f"the task {task.name} has no {what}; allowed: a run of {', '.join(having)}")
    return found


def metrics_of_all_tasks() -> dict[str, Metric]:
    """Every metric of every task by name: the keys that a row's `paper` may have."""
    return {metric.name: metric for task in all_tasks() for metric in (*task.metrics, *task.derived)}
