"""What to run: the resolved spec of a run, how it comes out of layers of settings, and its id. Loads no torch.

A `RunSpec` holds everything that can change a result and nothing else, so its id can name the result. Settings
come in layers (recipe, experiment, row, command line), later over earlier; `resolve` merges them, checks them and
sets to null every field that the chosen parts do not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.spec import DataSpec, unread_data
from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.models.averaged import averaged_in
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.models.unread import unread_entries, unread_model
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.schema import Strict
from metaformer_ablate.spec.checks import check_together
from metaformer_ablate.spec.merge import Merged, invalid, merge, per_stage, with_presets
from metaformer_ablate.spec.own_class import with_class
from metaformer_ablate.spec.run_spec import SECTION_NAMES, RunSpec
from metaformer_ablate.system.files import open_regular
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.training.spec import TrainSpec, completed, unread_train


@dataclass(frozen=True)
class Resolved:
    """A resolved spec, what its layers set, and {setting that nothing reads: why}."""

    spec: RunSpec
    merged: Merged
    unread: dict[str, str]


def resolve(layers: Iterable[Layer], seed: int = 0) -> RunSpec:
    """Merges layers, later over earlier, and checks the result.

    `model.size` and `model.name` are presets: values set in the same or a later layer stand over them, and what they
    set themselves is cleared of earlier layers. Raises RequestError for anything unknown, of a wrong type, out of
    range or contradictory, and for a strict setting that the chosen parts do not read.
    """
    return resolve_with_origins(layers, seed).spec


def resolve_with_origins(layers: Iterable[Layer], seed: int = 0) -> Resolved:
    """`resolve`, with what tells where each value came from."""
    COMPONENTS.read_own()
    merged = merge(layers)
    values = with_presets(merged)
    model = _validate(ModelSpec, "model", per_stage(values.get("model", {}), merged), merged)
    model = with_class(model, merged)
    if model.init_from is not None and model.init_recipe is None:
        of_file = {"init_sha256": _file_digest(model.init_from, merged), "init_averaged": averaged_in(model.init_from)}
        model = model.model_copy(update=of_file)
    data = _validate(DataSpec, "data", values.get("data", {}), merged)
    if not data.in_memory:
        facts = DATASETS[data.name]
        numbers = {"num_classes": data.classes}
        numbers |= {key: getattr(data, key) or getattr(facts, key) for key in ("train_images", "test_images")}
        data = data.model_copy(update=numbers)
    train = _validate(TrainSpec, "train", completed(values.get("train", {})), merged)
    task = None
    if (section := merged.task.settings) is not None:
        task = _validate(section, "task", values.get("task", {}), merged)
    complete = RunSpec(model=model, data=data, train=train, task=task, seed=seed)
    unread = unread_settings(complete, merged.task)
    spec = _null_unread(complete, unread, merged)
    check_together(spec, merged)
    return Resolved(spec, merged, unread)


def unread_settings(spec: RunSpec, task: Task) -> dict[str, str]:
    """{setting by dotted path: why neither the components of a spec nor its task read it}."""
    return {
        **{f"model.{field}": why for field, why in unread_model(spec.model).items()},
        **{f"data.{field}": why for field, why in unread_data(spec.data).items()},
        **{f"train.{field}": why for field, why in unread_train(spec.train).items()},
        **task.unread(spec),
    }


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
        first, leaves = error.errors(include_url=False)[0], merged.leaves
        keys = [str(key) for key in first["loc"]]
        path = ".".join([section, *keys])
        while path not in leaves:  # inside a list: the field is what has a description
            path = path.rpartition(".")[0]
            if not path:
                raise RequestError(f"{section} must be a mapping with: {', '.join(model.model_fields)}") from None
        if first["type"] == "missing":
            raise RequestError(f"{merged.home}{path} is not set; allowed: {leaves[path].description}") from None
        reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else ""
        allowed = reason or f"allowed: {leaves[path].description}"
        if first["type"] == "less_than" and first["ctx"]["lt"] == 2**31:
            allowed += f", below {2**31}"
        value: Any = values
        for key in path.split(".")[1:]:
            value = value[key]
        if path in merged.explicit:  # as it was written, not spread over the stages
            value = merged.explicit[path][0]
        raise invalid(path, value, allowed, merged) from None


def _null_unread(spec: RunSpec, unread: Mapping[str, str], merged: Merged) -> RunSpec:
    """The spec with null in every field that is `unread`, and in the entries of stages that are.

    Raises RequestError where a row or the command line sets one of them, and for a null where something reads the
    field and its description allows none.
    """
    entries = {
        (field, stage): why
        for (field, stage), why in unread_entries(spec.model).items()
        if f"model.{field}" not in unread
    }
    update = {}
    for name in SECTION_NAMES:
        if (section := getattr(spec, name)) is None:
            continue
        _check_nulls(section, name, unread, merged)
        changes = {}
        for field, info in type(section).model_fields.items():
            if (path := f"{name}.{field}") in unread:
                _refuse_unread(path, unread[path], merged)
                # What is not in the id is not in a record either, and a field that takes no null has its default.
                keeps_default = info.exclude or type(None) not in get_args(info.annotation)
                changes[field] = info.default if keeps_default else None
        update[name] = section.model_copy(update=changes)
    for (field, stage), why in entries.items():
        _refuse_unread_entry(field, stage, why, entries, spec, merged)
        values = list(getattr(update["model"], field))
        values[stage] = None
        update["model"] = update["model"].model_copy(update={field: tuple(values)})
    return spec.model_copy(update=update)


def _check_nulls(section: Strict, name: str, unread: Mapping[str, str], merged: Merged) -> None:
    """Raises RequestError for a null that something reads and the field's description does not allow."""
    for field, info in type(section).model_fields.items():
        nullable = info.default is None or "null" in (info.description or "")
        if getattr(section, field) is None and f"{name}.{field}" not in unread and not nullable:
            raise invalid(f"{name}.{field}", None, f"allowed: {info.description}", merged)


def _strictly_set(path: str, merged: Merged) -> tuple[str, Any]:
    """(path, value) of what a row or the command line sets at a path or in it; the value is None where they do not."""
    inside = [p for p in merged.explicit if p == path or p.startswith(path + ".")]
    path = inside[0] if inside else path
    value, layer = merged.explicit.get(path, (None, None))
    return path, value if layer is not None and layer.strict else None


def _refuse_unread(path: str, why: str, merged: Merged) -> None:
    path, value = _strictly_set(path, merged)
    if value is not None:
        raise RequestError(f"{merged.where(path)}{path} is {shown(value)}, but nothing reads it: {why}")


def _refuse_unread_entry(
    field: str, stage: int, why: str, entries: Container[tuple[str, int]], spec: RunSpec, merged: Merged
) -> None:
    """One value for all stages is read where any stage reads it; an entry of a list stands for its own stage."""
    path, value = _strictly_set(f"model.{field}", merged)
    listed = isinstance(value, list)
    if value is None or (listed and value[stage] is None):
        return
    if not listed and not all((field, i) in entries for i in range(len(spec.model.stages()[2]))):
        return
    at = f" at stage {stage + 1}" if listed else ""
    raise RequestError(f"{merged.where(path)}{path} is {shown(value)}, but nothing reads it{at}: {why}")
