"""Where each value of a row's resolved spec came from. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metaformer_ablate.models.presets import NAMED
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import MIXER_OPTIONS
from metaformer_ablate.models.unread import unread_entries
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.spec.known import of_open_mapping
from metaformer_ablate.spec.notes import flat_spec
from metaformer_ablate.spec.plan import Plan, row_layers
from metaformer_ablate.spec.resolve import Resolved, resolve_with_origins
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import override_layer


@dataclass(frozen=True)
class Origin:
    """A value of a resolved spec, and in words where it came from."""

    path: str
    value: Any
    source: str


def origins(plan: Plan, row: str) -> list[Origin]:
    """Every setting of a row's spec, in the order of the specs, and where its value came from."""
    overrides = override_layer(plan.overrides)
    resolved = resolve_with_origins(row_layers(plan.experiment, plan.experiment.rows[row], plan.recipe, overrides))
    values = flat_spec(plan.specs[row])
    paths: list[str] = []
    for path in resolved.merged.leaves:  # of an open mapping its entries, if it has some
        paths += [key for key in values if of_open_mapping(key) == path] or [path]
    return [Origin(path, values.get(path), _source(path, resolved)) for path in paths]


def _source(path: str, resolved: Resolved) -> str:
    """The place that set a value, or what it follows from."""
    merged, unread = resolved.merged, resolved.unread
    why = unread.get(path) or unread.get(".".join(path.split(".")[:2])) or _unread_in_all_stages(path, resolved.spec)
    if why is not None:
        return f"nothing reads it: {why}"
    entry = merged.explicit.get(path)
    if merged.epoch_factor is not None and path in ("train.epochs", "train.steps", "train.milestones") and entry:
        factor, layer = merged.epoch_factor
        return f"{_place(path, entry[1])}, times {factor:g} ({_place('train.epoch_factor', layer)})"
    if entry is not None:
        return _place(path, entry[1])
    return _preset(path, resolved) or _follows(path, resolved) or "default"


def _unread_in_all_stages(path: str, spec: RunSpec) -> str | None:
    """Why no stage reads a setting with an entry per stage; None where one does."""
    entries = unread_entries(spec.model)
    reasons = [entries.get((path.removeprefix("model."), stage)) for stage in range(len(spec.model.stages()[2]))]
    told = [reason for reason in reasons if reason is not None]
    return told[0] if told and len(told) == len(reasons) else None


def _place(path: str, layer: Layer) -> str:
    """`row 'pool5' (experiments/pooling_size.yaml:10)`, `experiments/recipes/digits.yaml:14`, `command line`."""
    where = layer.where(path)
    return f"{layer.about} ({where})" if layer.about and where != "command line" else where


def _preset(path: str, resolved: Resolved) -> str | None:
    """The size or the named model that a value is part of."""
    merged, field = resolved.merged, path.removeprefix("model.").split(".")[0]
    if not path.startswith("model."):
        return None
    named = NAMED[merged.named[0]] if merged.named else {}
    of_size = merged.size is not None or ("size" in named and field not in named)
    if of_size and field in ("depths", "dims", "drop_path", "layer_scale") and field not in named:
        size, layer = merged.size or (named["size"], merged.named[1])  # type: ignore[index]
        return f"model.size {size} ({_place('model.size' if merged.size else 'model.name', layer)})"
    if field in named:
        name, layer = merged.named  # type: ignore[misc]
        return f"model.name {name} ({_place('model.name', layer)})"
    return None


def _follows(path: str, resolved: Resolved) -> str | None:
    """What a value follows from that no layer sets."""
    spec, field = resolved.spec, path.rpartition(".")[2]
    if path in ("data.num_classes", "data.train_images", "data.test_images"):
        return f"the data set {spec.data.name}"
    if path in ("train.betas", "train.eps"):
        return f"default of the optimizer {spec.train.optimizer}"
    if path.startswith("model.") and field in MIXER_OPTIONS:
        mixers = [name for name in spec.model.stages()[2] if field in COMPONENTS.mixers[name].defaults]
        return f"default of {', '.join(dict.fromkeys(mixers))}" if mixers else None
    return None
