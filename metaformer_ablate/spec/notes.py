"""What is to know of a row of a plan: how its spec differs from the baseline's, and the notes that say so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.spec.merge import WHOLE_MODELS
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.spec.run_spec import SECTION_NAMES, RunSpec


def row_notes(plan: Plan, name: str) -> list[str]:
    """What a reader of a row has to know under this recipe: its own notes, what it changes besides what it sets first,
    and what of its data and training is not the baseline's."""
    notes = list(plan.experiment.rows[name].notes)
    if name in plan.not_applicable:
        return [*notes, f"not applicable: {plan.not_applicable[name]}"]
    if (baseline := plan.specs.get(plan.experiment.baseline)) is None:
        return notes
    notes += [*_start(plan.specs[name].model), *_other_parts(plan, name)]
    if changes := differences(plan.specs[name], baseline, ("data", "train", "task")):
        notes.append("not the baseline's recipe: " + ", ".join(map(_change, changes)))
    return notes


def _start(model: ModelSpec) -> list[str]:
    """A note where a row starts from weights that are not all those of a file as it was trained."""
    averaged = f"the averaged weights ({model.init_averaged}) of " if model.init_averaged else ""
    if not (averaged or model.new_head):
        return []
    source = f"its run under {model.init_recipe}" if model.init_recipe else Path(str(model.init_from)).name
    return [f"starts from {averaged}{source}" + (", its last layer anew (model.new_head)" if model.new_head else "")]


# Settings that stand for a whole model: which of them a row and the baseline use is one change.
_WHOLE_MODELS = (*WHOLE_MODELS, "model.size")


def _other_parts(plan: Plan, name: str) -> list[str]:
    """A note where a row and the baseline set the model apart in more than one thing; the row's first is its point."""
    rows, base = plan.experiment.rows, plan.experiment.baseline
    sets = {**rows[name].sets(plan.recipe.name), **rows[base].sets(plan.recipe.name)}
    changed = differences(plan.specs[name], plan.specs[base], ("model",))
    found: dict[str, list[tuple[str, Any, Any]]] = {}
    whole = [key for key in sets if key in _WHOLE_MODELS]
    for key in sets if name != base else ():
        if key in whole:
            found.setdefault(whole[0], [])
        elif key.startswith("model.") and (own := [each for each in changed if f"{each[0]}.".startswith(f"{key}.")]):
            found[key] = own
    point, *others = found or [""]
    if not others:
        return []
    return [f"besides {point} it changes " + ", ".join(_change(each) for key in others for each in found[key])]


def _change(change: tuple[str, Any, Any]) -> str:
    path, here, there = change
    return f"{path} {value_text(there)} -> {value_text(here)}"


def value_text(value: Any) -> str:
    """A value as a spec has it; one that is the same in every stage is said once."""
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        value = value[0]
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def map_notes(plan: Plan, name: str) -> list[str]:
    """The stages of a row where a window covers the whole map, or where there is nothing to mix."""
    if (spec := plan.specs.get(name)) is None:
        return []
    covered: dict[str, list[str]] = {}
    size = spec.data.image_size
    for i, (height, width) in enumerate([] if size is None else spec.model.stage_sizes(size)):
        mixer = spec.model.stages()[2][i]
        part = COMPONENTS.mixers[mixer]
        window = spec.model.at_stage(part.window, i) if part.window else None
        place = f"stage {i + 1} ({height} x {width})"
        if not part.mixes:
            continue
        if height == width == 1:
            covered.setdefault(f"{mixer} has nothing to mix", []).append(place)
        elif window is not None and window // 2 >= max(height, width) - 1:
            covered.setdefault(f"a window of {window} covers the whole map", []).append(place)
    return [f"{what} in {', '.join(places)}" for what, places in covered.items()]


def differences(
    spec: RunSpec, baseline: RunSpec, sections: Sequence[str] = SECTION_NAMES
) -> list[tuple[str, Any, Any]]:
    """(path, value, the baseline's value) of every resolved field that differs, seeds apart."""
    found = []
    for section in sections:
        here, there = (_flat(tree.to_dict().get(section, {}), section) for tree in (spec, baseline))
        for path in sorted((here.keys() | there.keys()) - {"model.init_run"}):  # which follows from the others
            if here.get(path) != there.get(path):
                found.append((path, here.get(path), there.get(path)))
    return found


def flat_spec(spec: RunSpec) -> dict[str, Any]:
    """{dotted path: value} of a spec, also of what is not part of its id. Later settings that are null are left out."""
    tree = spec.with_execution()
    flat: dict[str, Any] = {}
    for section in SECTION_NAMES:
        flat |= _flat(tree.get(section) or {}, section)
    return flat


def _flat(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}"
        flat |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return flat
