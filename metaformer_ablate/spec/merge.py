"""Layers of settings into one: known keys, presets, values per stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel

from metaformer_ablate.errors import RequestError, nearest, shown, unknown
from metaformer_ablate.models.components import full_name
from metaformer_ablate.models.presets import NAMED, SIZES
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import MIXER_OPTIONS, STAGED, ModelSpec
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.yaml_reader import kind
from metaformer_ablate.spec.run_spec import SECTIONS


def _section_of(annotation: Any) -> type[BaseModel] | None:
    kinds = [k for k in (annotation, *get_args(annotation)) if isinstance(k, type) and issubclass(k, BaseModel)]
    return kinds[0] if kinds else None


def _leaves(model: type[BaseModel], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        path = f"{prefix}.{name}"
        if (inner := _section_of(info.annotation)) is not None:
            found.update(_leaves(inner, path))
        else:
            found[path] = info
    return found


LEAVES: dict[str, Any] = {p: info for name, cls in SECTIONS.items() for p, info in _leaves(cls, name).items()}

del LEAVES["model.init_sha256"]  # follows from the file


# Short for other fields; none of them stays in the resolved spec.
_SHORTHANDS = {
    "model.name": "a named model: " + ", ".join(NAMED),
    "model.size": "a size: " + ", ".join(SIZES),
    "train.epoch_factor": "a number above 0: the recipe's epochs times it",
}  # Of the model's fields, those with one entry a stage; a single value stands for all stages.


# Words that are easily taken for settings, and the options that they are.
_OPTIONS = {"seed": "--seeds N", "seeds": "--seeds N", "recipe": "--recipe NAME", "results": "--results DIR"}


def check_path(path: str, where: str) -> None:
    """Raises unless a dotted path is a setting."""
    known = [*LEAVES, *_SHORTHANDS]
    if path in known:
        return
    inside = [p for p in known if p.startswith(path + ".")]
    if inside:
        raise RequestError(f"{where}: {path} must be a mapping with: {', '.join(p[len(path) + 1 :] for p in inside)}")
    parent = path.rpartition(".")[0]
    siblings = [p for p in known if p.rpartition(".")[0] == parent]
    allowed = f"; allowed in {parent}: {', '.join(p[len(parent) + 1 :] for p in siblings)}" if siblings else ""
    if not siblings:
        allowed = f"; settings begin with {', '.join(f'{s}.' for s in SECTIONS)}"
    if path in _OPTIONS:
        allowed += f"; did you mean the option {_OPTIONS[path]}?"
    raise RequestError(f"{where}: unknown key {shown(path)}{nearest(path, known)}{allowed}")


def flatten(tree: Mapping[Any, Any], where: Callable[[str], str], prefix: str = "") -> dict[str, Any]:
    """{"model": {"stem": {"kernel": 3}}} -> {"model.stem.kernel": 3}. Keys may be dotted already, at any depth."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise RequestError(f"{where(prefix)}: the key {shown(key)} is not a string")
        path = f"{prefix}.{key}" if prefix else key
        inner = flatten(value, where, path) if isinstance(value, Mapping) and path not in LEAVES else {path: value}
        if isinstance(value, Mapping) and not inner:
            raise RequestError(f"{where(path)}: {path} is an empty mapping")
        if repeated := sorted(flat.keys() & inner.keys()):
            raise RequestError(f"{where(path)}: {repeated[0]} is set twice")
        flat.update(inner)
    return flat


@dataclass
class Merged:
    """The settings of all layers, and which layer each came from."""

    explicit: dict[str, tuple[Any, Layer]] = field(default_factory=dict)
    named: tuple[str, Layer] | None = None
    size: tuple[str, Layer] | None = None
    epoch_factor: tuple[float, Layer] | None = None
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


def merge(layers: Iterable[Layer]) -> Merged:
    merged = Merged()
    for layer in layers:
        merged.home = merged.home or f"{layer.where('')}: "
        for path in layer.values:
            check_path(path, layer.where(path))
        values = dict(layer.values)
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
            cleared |= {"model.timm", "model.comparator"}
        if size is not None:
            merged.size = (size, layer)
        if name is not None or size is not None:
            cleared |= {"model.depths", "model.dims"}
        if "model.timm" in values and merged.named and "comparator" in NAMED[merged.named[0]]:
            merged.named = None
        merged.explicit = {p: v for p, v in merged.explicit.items() if p not in cleared}
        if "train.epoch_factor" in values:
            factor = values.pop("train.epoch_factor")
            if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1e6:
                raise RequestError(
                    f"{layer.where('train.epoch_factor')}: train.epoch_factor is {factor!r}; "
                    f"allowed: {_SHORTHANDS['train.epoch_factor']}"
                )
            merged.epoch_factor = (factor, layer)
        if "train.epochs" in values:
            merged.epoch_factor = None
        merged.explicit.update({path: (value, layer) for path, value in values.items()})
    return merged


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
    if merged.epoch_factor and isinstance(flat.get("train.epochs"), int):
        flat["train.epochs"] = max(1, round(flat["train.epochs"] * merged.epoch_factor[0]))
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
