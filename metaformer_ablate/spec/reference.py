"""The reference of the settings: default, what is allowed, what reads each, since when. Made from the specs themselves.

What reads a setting is found by asking the checks that refuse one that nothing reads, under every choice it may depend
on. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import STAGED
from metaformer_ablate.models.unread import unread_entries
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.schema import FIRST_VERSION, since_version
from metaformer_ablate.spec.known import LEAVES, SHORTHANDS, task_leaves
from metaformer_ablate.spec.resolve import resolve, unread_settings
from metaformer_ablate.spec.run_spec import SECTIONS, RunSpec
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import DEFAULT, TASKS, all_tasks
from metaformer_ablate.training.spec import SCHEDULES

_TASK_NAMES = "one of: " + ", ".join(TASKS)


@dataclass(frozen=True)
class SettingLine:
    """A line of the reference.

    `read_where` has the values of other settings under which this one is read, all of them at once; empty: always.
    `or_where` has values that do as well.
    """

    path: str
    task: str | None  # whose section it stands in, where the path begins with `task.`
    required: bool  # it has no default: the recipe sets it
    default: Any
    allowed: str
    read_where: Mapping[str, list[str]]
    or_where: Mapping[str, list[str]]
    in_id: bool  # False: it says how a run is carried out, and cannot change its id
    since: str

    @property
    def readers(self) -> str:
        """`where train.schedule is step`; `always` where nothing else decides."""
        if not self.read_where:
            return "always"
        needed = " and ".join(_is_one_of(path, values) for path, values in self.read_where.items())
        return "where " + ", or ".join([needed, *(_is_one_of(path, values) for path, values in self.or_where.items())])

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "task": self.task,
            "required": self.required,
            "default": self.default,
            "allowed": self.allowed,
            "read_where": dict(self.read_where),
            "or_where": dict(self.or_where),
            "in_id": self.in_id,
            "since": self.since,
        }


def _is_one_of(path: str, values: list[str]) -> str:
    listed = values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}"
    return f"{path} is {listed}"


def settings_reference(prefix: str = "") -> list[SettingLine]:
    """The settings whose paths begin with a prefix, in the order of the specs; those of tasks last, task by task."""
    COMPONENTS.read_own()
    found = [
        SettingLine(path, None, False, None, allowed, {}, {}, True, FIRST_VERSION)
        for path, allowed in SHORTHANDS.items()
    ]
    readers = _Readers()
    found += [_line(path, None, info, *readers.of(path)) for path, info in LEAVES.items()]
    found.append(SettingLine("task.name", None, False, DEFAULT, _TASK_NAMES, {}, {}, True, FIRST_VERSION))
    for task in all_tasks():
        own = {path: info for path, info in task_leaves(task).items() if path != "task.name"}
        found += [_line(path, task.name, info, *readers.of(path, task)) for path, info in own.items()]
    return [line for line in found if line.path.startswith(prefix)]


def _line(
    path: str,
    task: str | None,
    info: FieldInfo,
    read_where: Mapping[str, list[str]],
    or_where: Mapping[str, list[str]],
) -> SettingLine:
    in_id = info.exclude is not True
    allowed, since = info.description or "", since_version(info)
    default = None if info.is_required() else _default(path, info)
    return SettingLine(path, task, info.is_required(), default, allowed, read_where, or_where, in_id, since)


def _default(path: str, info: FieldInfo) -> Any:
    """The default of a setting; of a part of a geometry that of the whole."""
    section, *fields = path.split(".")
    if len(fields) == 2:
        return getattr(SECTIONS[section].model_fields[fields[0]].default, fields[1])
    return list(info.default) if isinstance(info.default, tuple) else info.default


@dataclass(frozen=True)
class _Choice:
    """A setting that decides which others are read, and its values to try, by how they are told."""

    path: str
    values: Mapping[str, Mapping[str, Any]]  # told -> {field of the section: value}

    def applied(self, spec: RunSpec) -> Iterator[tuple[str, RunSpec]]:
        """Each value as it is told, and a spec with it. No check is made: the spec need not make sense."""
        section, _, field = self.path.partition(".")
        for told, values in self.values.items():
            before = getattr(spec, section)
            if before is not None and field in type(before).model_fields:
                yield told, spec.model_copy(update={section: before.model_copy(update=dict(values))})


def _choice(path: str, values: Mapping[str, Any]) -> _Choice:
    return _Choice(path, {told: {path.partition(".")[2]: value} for told, value in values.items()})


def _names(path: str, *names: str) -> _Choice:
    return _choice(path, {name: name for name in names})


# A folder of one's own is read in one of two ways, which read different settings.
_FOLDER = {"folder (in memory)": "memory", "folder (on disk)": "disk"}


def _choices() -> list[_Choice]:
    switch = {"true": True, "false": False}
    sets = {name: {"name": name, "held_in": None} for name in DATASETS if name != "folder"}
    sets |= {told: {"name": "folder", "held_in": place} for told, place in _FOLDER.items()}
    return [
        _choice("model.token_mixer", {_short(name): (name,) * 4 for name in COMPONENTS.mixers}),
        _choice("model.norm", {_short(name): name for name in COMPONENTS.norms}),
        _choice("model.residual", switch),
        _choice("model.channel_mlp", switch),
        _choice("model.init_from", {"set": "weights.pth", "null": None}),
        _names("model.head", "linear", "mlp"),
        _Choice("data.name", sets),
        _choice("data.mixup", {"above 0": 0.8, "0": 0.0}),
        _choice("data.cutmix", {"above 0": 1.0, "0": 0.0}),
        _choice("train.optimizer", {"one that has it, such as adamw": "adamw", "sgd": "sgd"}),
        _names("train.schedule", *SCHEDULES),
        _choice("train.steps", {"null": None, "set": 1000}),
        _choice("train.warmup_epochs", {"above 0": 5.0, "0": 0.0}),
        _choice("train.warmup_steps", {"null": None, "above 0": 100}),
        _names("task.head", "retinanet", "mask_rcnn"),
        _choice("task.crop", {"set": (512, 512), "null": None}),
        _choice("task.exact_size", {"null": None, "set": (512, 512)}),
    ]


def _short(name: str) -> str:
    return name.partition("@")[0]


class _Readers:
    """Under which choices each setting is read, found by asking `unread_settings` of specs that differ in them."""

    def __init__(self) -> None:
        self.choices = _choices()
        self.tasks = {task.name: task for task in all_tasks()}
        self.bases = {name: self._base(task) for name, task in self.tasks.items()}
        self.single = {name: self._with_each_choice(name, base) for name, base in self.bases.items()}

    def _base(self, task: Task) -> RunSpec:
        """A run of a task in which as much as possible is read."""
        sets = [name for name, facts in DATASETS.items() if facts.task == task.name]
        name = next((name for name in sets if not DATASETS[name].in_memory), sets[0])
        values: dict[str, Any] = {"data.name": name, "data.image_size": 224, "task.name": task.name}
        spec = resolve([Layer(values, lambda path: "reference")])
        data = spec.data.model_copy(update={"mixup": 0.8, "cutmix": 1.0, "image_size": 224})
        return spec.model_copy(update={"data": data, "model": spec.model.model_copy(update={"head": "mlp"})})

    def _with_each_choice(self, name: str, base: RunSpec) -> dict[str, dict[str, tuple[RunSpec, set[str]]]]:
        """{choice: {value: (the spec, what nothing reads in it)}}; data sets are those of the task."""
        return {
            choice.path: {
                told: (spec, self._unread(spec, self.tasks[name]))
                for told, spec in choice.applied(base)
                if DATASETS[spec.data.name].task == name
            }
            for choice in self.choices
        }

    def _unread(self, spec: RunSpec, task: Task) -> set[str]:
        stages = range(len(spec.model.stages()[2]))
        entries = unread_entries(spec.model)
        of_stages = {f"model.{field}" for field in STAGED if all((field, stage) in entries for stage in stages)}
        return set(unread_settings(spec, task)) | of_stages

    def of(self, path: str, only: Task | None = None) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The values of other settings under which one is read, and those that do as well."""
        path = ".".join(path.split(".")[:2])  # a part of a geometry is read where the geometry is
        if path == "model.args":  # of models that have nothing else to choose from
            return {"model.class": ["set"]}, {"model.timm": ["set"]}
        names = [only.name] if only is not None else list(self.tasks)
        found = {name: self._of_task(path, name) for name in names}
        reading = {name: values for name, values in found.items() if values is not None}
        where: dict[str, list[str]] = {}
        if only is None and len(reading) < len(names):
            where["task.name"] = list(reading)
        for choice in self.choices:
            values = [values[choice.path] for values in reading.values() if choice.path in values]
            tried = {told for name in reading for told in self.single[name].get(choice.path, {})}
            read = [told for told in choice.values if any(told in each for each in values)]
            if read and len(read) < len(tried):
                where[choice.path] = (
                    ["folder", *(r for r in read if r not in _FOLDER)] if {*_FOLDER} <= {*read} else read
                )
        if "data.name" in where:  # a data set is of one task
            where.pop("task.name", None)
        return where, self._instead(path, where, next(iter(reading), names[0]))

    def _of_task(self, path: str, name: str) -> dict[str, list[str]] | None:
        """{choice: the values under which a task reads a setting}; None where it never does."""
        found = {
            choice: [told for told, (_, unread) in tried.items() if path not in unread]
            for choice, tried in self.single[name].items()
        }
        return {choice: read for choice, read in found.items() if read} if any(found.values()) else None

    def _instead(self, path: str, where: Mapping[str, list[str]], name: str) -> dict[str, list[str]]:
        """Values of further choices that have a setting read where one of `where` does not hold."""
        instead: dict[str, list[str]] = {}
        for decides in where.keys() & (self.single[name].keys() - {"data.name"}):
            for told, (spec, unread) in self.single[name][decides].items():
                if told in where[decides] or path not in unread:
                    continue
                for choice in self.choices:
                    for other, both in choice.applied(spec):
                        if choice.path not in where and path not in self._unread(both, self.tasks[name]):
                            instead.setdefault(choice.path, [])
                            instead[choice.path] += [other] if other not in instead[choice.path] else []
        return instead
