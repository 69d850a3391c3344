"""What to run: the resolved spec of a run, how it comes out of layers of settings, and its id. Loads no torch.

A `RunSpec` holds everything that can change a result and nothing else, so its id can name the result. Settings
come in layers (recipe, experiment, row, command line), later over earlier; `resolve` merges them, checks them and
sets to null every field that the chosen parts do not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.spec import DataSpec, unread_data
from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import ModelSpec, unread_model
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.schema import Strict
from metaformer_ablate.spec.checks import check_together
from metaformer_ablate.spec.merge import LEAVES, Merged, invalid, merge, per_stage, with_presets
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.files import open_regular
from metaformer_ablate.training.spec import TrainSpec, unread_train


def resolve(layers: Iterable[Layer], seed: int = 0) -> RunSpec:
    """Merges layers, later over earlier, and checks the result.

    `model.size` and `model.name` are presets: values set in the same or a later layer stand over them, and what they
    set themselves is cleared of earlier layers. Raises RequestError for anything unknown, of a wrong type, out of
    range or contradictory, and for a strict setting that the chosen parts do not read.
    """
    COMPONENTS.read_own()
    merged = merge(layers)
    values = with_presets(merged)
    model = _validate(ModelSpec, "model", per_stage(values.get("model", {}), merged), merged)
    if model.init_from is not None:
        model = model.model_copy(update={"init_sha256": _file_digest(model.init_from, merged)})
    data = _validate(DataSpec, "data", values.get("data", {}), merged)
    if not data.in_memory:
        facts = DATASETS[data.name]
        numbers = {"num_classes": data.classes}
        numbers |= {key: getattr(data, key) or getattr(facts, key) for key in ("train_images", "test_images")}
        data = data.model_copy(update=numbers)
    train = _validate(TrainSpec, "train", values.get("train", {}), merged)
    spec = RunSpec(
        model=_null_unread(model, "model", unread_model(model), merged),
        data=_null_unread(data, "data", unread_data(data), merged),
        train=_null_unread(train, "train", unread_train(train), merged),
        seed=seed,
    )
    check_together(spec, merged)
    return spec


def _file_digest(path: str, merged: Merged) -> str:
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise invalid("model.init_from", path, f"the file cannot be read: {error.strerror}", merged) from None


S = TypeVar("S", bound=Strict)


def _validate(model: type[S], section: str, values: dict[str, Any], merged: Merged) -> S:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = [str(key) for key in first["loc"]]
        path = ".".join([section, *keys])
        while path not in LEAVES:  # inside a list: the field is what has a description
            path = path.rpartition(".")[0]
            if not path:
                raise RequestError(f"{section} must be a mapping with: {', '.join(model.model_fields)}") from None
        if first["type"] == "missing":
            raise RequestError(f"{merged.home}{path} is not set; allowed: {LEAVES[path].description}") from None
        reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else ""
        allowed = reason or f"allowed: {LEAVES[path].description}"
        if first["type"] == "less_than" and first["ctx"]["lt"] == 2**31:
            allowed += f", below {2**31}"
        value: Any = values
        for key in path.split(".")[1:]:
            value = value[key]
        if path in merged.explicit:  # as it was written, not spread over the stages
            value = merged.explicit[path][0]
        raise invalid(path, value, allowed, merged) from None


def _null_unread(section: S, name: str, unread_fields: dict[str, str], merged: Merged) -> S:
    """The section with unread fields null. Raises where a row or the command line sets one of them, and for a null
    where something reads the field and its description allows none."""
    for key, info in type(section).model_fields.items():
        nullable = info.default is None or "null" in (info.description or "")
        if getattr(section, key) is None and key not in unread_fields and not nullable:
            raise invalid(f"{name}.{key}", None, f"allowed: {info.description}", merged)
    update: dict[str, Any] = {}
    for key, why in unread_fields.items():
        option, _, stage = key.partition(".")
        path = f"{name}.{option}"
        inside = [p for p in merged.explicit if p == path or p.startswith(path + ".")]
        path = inside[0] if inside else path
        value, layer = merged.explicit.get(path, (None, None))
        if layer is not None and layer.strict and value is not None:
            # One value for all stages is read where any stage reads it; an entry of a list stands for its own stage.
            if not stage:
                unread = True
            elif isinstance(value, list):
                unread = value[int(stage)] is not None
            else:
                unread = all(f"{option}.{i}" in unread_fields for i in range(len(getattr(section, option))))
            if unread:
                at = f" at stage {int(stage) + 1}" if stage and isinstance(value, list) else ""
                raise RequestError(f"{merged.where(path)}{path} is {shown(value)}, but nothing reads it{at}: {why}")
        if stage:
            entries = list(update.get(option, getattr(section, option)))
            entries[int(stage)] = None
            update[option] = tuple(entries)
        else:
            info = type(section).model_fields[option]
            update[option] = info.default if info.exclude else None  # what is not in the id is not in a record either
    return section.model_copy(update=update)
