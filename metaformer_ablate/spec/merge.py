"""Layers of settings into one: presets, the task, values per stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic.fields import FieldInfo

from metaformer_ablate.errors import RequestError, shown, unknown
from metaformer_ablate.models.components import full_name
from metaformer_ablate.models.presets import NAMED, SIZES
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import MIXER_OPTIONS, STAGED, ModelSpec
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.yaml_reader import kind
from metaformer_ablate.spec.known import LEAVES, SHORTHANDS, check_path, of_open_mapping, task_leaves
from metaformer_ablate.spec.run_spec import SECTIONS
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import TASKS, get_task


@dataclass
class Merged:
    """The settings of all layers, and which layer each came from."""

    explicit: dict[str, tuple[Any, Layer]] = field(default_factory=dict)
    named: tuple[str, Layer] | None = None
    size: tuple[str, Layer] | None = None
    epoch_factor: tuple[float, Layer] | None = None
    task: Task = field(default_factory=get_task)
    home: str = ""  # `file: ` of the first layer, which has to set what has no default

    def where(self, path: str) -> str:
        """`file:line: row 'x': ` of what set a path, or of what holds it; empty for a default."""
        chosen = self.explicit.get(path)
        if chosen is None:
            inside = [v for p, v in self.explicit.items() if p.startswith(path + ".")]
            preset = (self.size or self.named) if path in ("model.depths", "model.dims") else self.named
            source = inside[0][1] if inside else preset[1] if preset and path.startswith("model.") else None
        else:
            source = chosen[1]
        if source is None:
            return ""
        about = f"{source.about}: " if source.about else ""
        return f"{source.where(path)}: {about}"

    @property
    def leaves(self) -> dict[str, FieldInfo]:
        """The settings that there are."""
        return LEAVES | task_leaves(self.task)

    def choose_task(self, name: Any, layer: Layer) -> None:
        """Takes the task that a layer names. What earlier layers set of another task is cleared."""
        if not isinstance(name, str) or name not in TASKS:
            about = f"{layer.about}: " if layer.about else ""
            raise RequestError(f"{layer.where('task.name')}: {about}task.name: {unknown('task', str(name), TASKS)}")
        if name != self.task.name:
            self.explicit = {p: v for p, v in self.explicit.items() if not p.startswith("task.")}
        self.task = get_task(name)


def merge(layers: Iterable[Layer]) -> Merged:
    """The settings of layers, later over earlier. Raises RequestError for what is no setting."""
    merged = Merged()
    for layer in layers:
        merged.home = merged.home or f"{layer.where('')}: "
        if "task.name" in layer.values:
            merged.choose_task(layer.values["task.name"], layer)
        for path in layer.values:
            check_path(path, layer.where, merged.task)
        values = dict(layer.values)
        _choose_presets(merged, layer, values)
        merged.explicit.update({path: (value, layer) for path, value in values.items()})
    return merged


def _choose_presets(merged: Merged, layer: Layer, values: dict[str, Any]) -> None:
    """Takes the shorthands of a layer out of its values; what a preset sets itself is cleared of earlier layers."""
    name, size = values.pop("model.name", None), values.pop("model.size", None)
    if name is not None and size is not None:
        raise RequestError(f"{layer.where('model.size')}: set model.name or model.size, not both")
    for key, chosen, table in (("model.name", name, NAMED), ("model.size", size, SIZES)):
        if key in layer.values and (not isinstance(chosen, str) or chosen not in table):
            what = "model" if table is NAMED else "size"
            raise RequestError(f"{layer.where(key)}: {key}: {unknown(what, str(chosen), table)}")
    cleared: set[str] = set()
    if name is not None:
        merged.named, merged.size = (name, layer), None
        # A named model stands for all of an architecture, but how much of it is dropped is the recipe's to say.
        cleared = {f"model.{key}" for key in NAMED[name] if key != "drop_path"}
    if size is not None:
        merged.size = (size, layer)
    if name is not None or size is not None:
        cleared |= {"model.depths", "model.dims"}
    merged.explicit = {p: v for p, v in merged.explicit.items() if p not in cleared}
    _choose_whole_model(merged, layer, values)
    lengths = [path for path in ("train.epochs", "train.steps") if values.get(path) is not None]
    if "train.epoch_factor" in values:
        factor = values.pop("train.epoch_factor")
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1e6:
            raise RequestError(
                f"{layer.where('train.epoch_factor')}: train.epoch_factor is {factor!r}; "
                f"allowed: {SHORTHANDS['train.epoch_factor']}"
            )
        if lengths:
            raise RequestError(
                f"{layer.where('train.epoch_factor')}: train.epoch_factor is {factor!r} and {lengths[0]} is "
                f"{shown(values[lengths[0]])}; allowed: one of them"
            )
        merged.epoch_factor = (factor, layer)
    elif lengths:
        merged.epoch_factor = None
    _choose_training(merged, layer, values)


# What names a model as a whole.
WHOLE_MODELS = ("model.name", "model.timm", "model.comparator", "model.class")


def _choose_whole_model(merged: Merged, layer: Layer, values: dict[str, Any]) -> None:
    """Clears of earlier layers what belongs to another kind of model than the one that this layer names.

    Arguments stay from class to class and from timm's to timm's: one that the other lacks is refused.
    """
    chosen = [path for path in WHOLE_MODELS if layer.values.get(path) is not None]
    if len(chosen) > 1:
        found = " and ".join(f"{path} is {shown(layer.values[path])}" for path in chosen)
        raise RequestError(f"{layer.where(chosen[1])}: {found}; allowed: one of them")
    cleared: set[str] = set()
    if chosen:
        (path,) = chosen
        if path != "model.name" and merged.named and "comparator" in NAMED[merged.named[0]]:
            merged.named = None
        if merged.explicit.get(path, (None,))[0] is None:
            cleared = {*WHOLE_MODELS, *(each for each in merged.explicit if of_open_mapping(each))}
    if "model.args" in values:
        if (args := values.pop("model.args")) is not None:
            allowed = f"allowed: {LEAVES['model.args'].description}"
            raise RequestError(f"{layer.where('model.args')}: model.args is {shown(args)} ({kind(args)}); {allowed}")
        cleared |= {each for each in merged.explicit if of_open_mapping(each)}
    merged.explicit = {p: v for p, v in merged.explicit.items() if p not in cleared}


# Two ways to say one thing, of which a run has one.
_EITHER = (("train.epochs", "train.steps"), ("train.warmup_epochs", "train.warmup_steps"))


def _choose_training(merged: Merged, layer: Layer, values: dict[str, Any]) -> None:
    """Clears of earlier layers what belongs to a choice that this one makes anew.

    A length in epochs stands over one in steps and the other way round, and milestones are in the unit of the length;
    what an optimiser reads was meant for that one.
    """
    cleared: set[str] = set()
    for one, other in _EITHER:
        chosen = [path for path in (one, other) if values.get(path) is not None]
        if len(chosen) == 2:
            raise RequestError(f"{layer.where(other)}: set {one} or {other}, not both")
        cleared |= {one, other}.difference(chosen) if chosen else set()
    in_steps = merged.explicit.get("train.steps", (None,))[0] is not None
    if values.get("train.epochs" if in_steps else "train.steps") is not None:
        cleared.add("train.milestones")
    if (name := values.get("train.optimizer")) is not None:
        before = merged.explicit.get("train.optimizer", ("adamw",))[0]
        cleared |= {"train.betas", "train.eps", "train.optimizer_args"} if name != before else set()
    merged.explicit = {p: v for p, v in merged.explicit.items() if p not in cleared}


def with_presets(merged: Merged) -> dict[str, Any]:
    """Nested values of the presets with the explicit settings over them."""
    flat: dict[str, Any] = {}
    named = dict(NAMED[merged.named[0]]) if merged.named else {}
    size = SIZES[merged.size[0]] if merged.size else SIZES[named.pop("size")] if "size" in named else None
    named.pop("size", None)
    if size is not None:
        flat |= {"model.drop_path": size.drop_path, "model.layer_scale": size.layer_scale}
    flat |= {f"model.{key}": value for key, value in named.items()}
    if size is not None and (merged.size or "depths" not in named):
        flat |= {"model.depths": size.depths, "model.dims": size.dims}
    flat |= {path: value for path, (value, _) in merged.explicit.items()}
    if merged.epoch_factor:
        flat |= _times(merged.epoch_factor[0], flat)
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = value
    for path in ("model.stem", "model.downsample"):  # a part of a geometry keeps the rest of the default
        section, leaf = path.split(".")
        if leaf in nested.get(section, {}):
            default = SECTIONS[section].model_fields[leaf].default.model_dump()
            nested[section][leaf] = {**default, **nested[section][leaf]}
    return nested


def _times(factor: float, flat: dict[str, Any]) -> dict[str, Any]:
    """The length of training and its milestones times a factor; what is no number is left to be refused."""

    def times(value: Any) -> Any:
        in_range = isinstance(value, int) and 0 < value < 2**31
        return max(1, round(value * factor)) if in_range else value

    found: dict[str, Any] = {path: times(flat[path]) for path in ("train.epochs", "train.steps") if path in flat}
    if isinstance(milestones := flat.get("train.milestones"), list):
        found["train.milestones"] = list(map(times, milestones))
    return found


def per_stage(values: dict[str, Any], merged: Merged) -> dict[str, Any]:
    """Writes single values out for all stages and checks the lengths of lists."""
    fields = ModelSpec.model_fields
    lists = {key: values.get(key, fields[key].default) for key in ("depths", "dims", *STAGED)}
    depths = lists["depths"]
    if not isinstance(depths, (list, tuple)) or not depths:
        raise invalid("model.depths", depths, f"allowed: {fields['depths'].description}", merged)
    stages = len(depths)
    for key, value in lists.items():
        if key in STAGED and not isinstance(value, (list, tuple)):
            lists[key] = [value] * stages
        elif isinstance(value, (list, tuple)) and len(value) != stages:
            raise RequestError(
                f"{merged.where(f'model.{key}')}model.{key} has {len(value)} entries, {list(value)}; "
                f"allowed: {'one value, or ' if key in STAGED else ''}{stages} entries, "
                f"one for each stage of depths {list(depths)}"
            )
    lists = {key: list(v) if isinstance(v, tuple) else v for key, v in lists.items()}
    for option in (key for key in STAGED if key in MIXER_OPTIONS):
        for i, mixer in enumerate(lists["token_mixer"]):
            name = full_name(mixer, COMPONENTS.mixers) if isinstance(mixer, str) else None
            if lists[option][i] is None and name is not None and option in COMPONENTS.mixers[name].reads:
                if f"model.{option}" in merged.explicit and "null" not in str(fields[option].description):
                    set_to = merged.explicit[f"model.{option}"][0]
                    reads = f"allowed in stage {i + 1}, where {mixer} reads it: {fields[option].description}"
                    raise invalid(f"model.{option}", set_to, reads, merged)
                lists[option][i] = COMPONENTS.mixers[name].defaults.get(option, fields[option].default)
    return {**values, **lists}


def invalid(path: str, value: Any, allowed: str, merged: Merged) -> RequestError:
    found = list(value) if isinstance(value, tuple) else value
    return RequestError(f"{merged.where(path)}{path} is {shown(found)} ({kind(found)}); {allowed}")
