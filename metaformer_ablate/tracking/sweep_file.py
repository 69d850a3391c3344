"""W&B agents: the sweep file that tells them what to call, and the settings that they call `ablate trial` with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.models.spec import FROM_RECIPE
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec.experiment import Experiment, Recipe, find
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.words import as_words, is_text, override_layer, read_value

# Settings that name files: by the path alone, or before the colon and the class.
_FILES = ("model.init_from", "model.class")


def read_axes(words: Sequence[str]) -> dict[str, list[Any]]:
    """{path: values} of `key.path=v1,v2` words; a value may be a list in brackets, or text without a comma."""
    axes: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise RequestError(f"--axes: {shown(word)} is not an axis; write key.path=v1,v2")
        if key in axes:
            raise RequestError(f"--axes: {key} is set twice")
        if is_text(key):
            axes[key] = [read_value(key, part.strip()) for part in text.split(",")]
        else:
            axes[key] = parse(f"[{text}]", f"--axes: {key}")
        if repeated := [value for i, value in enumerate(axes[key]) if value in axes[key][:i]]:
            raise RequestError(f"--axes: {key} has the value {shown(repeated[0])} twice")
        if key in _FILES:
            axes[key] = [value and _whole_path(key, value) for value in axes[key]]
    return axes


def check_axes(experiment: str, recipe: str, axes: Mapping[str, Sequence[Any]]) -> int:
    """The number of combinations. Raises RequestError for one that makes no sense or is the same run as another."""
    seen: dict[str, str] = {}
    for values in product(*axes.values()):
        combination = dict(zip(axes, values, strict=True))
        words = " ".join(as_words(combination))
        try:
            chosen = plan(experiment, recipe, as_words(combination), baseline_only=True)
        except RequestError as error:
            raise RequestError(f"--axes: the combination {words}: {error}") from None
        for why in chosen.not_applicable.values():
            raise RequestError(f"--axes: the combination {words} is not applicable: {why}")
        spec = chosen.specs[chosen.experiment.baseline]
        if (other := seen.setdefault(spec.run_id, words)) != words:
            raise RequestError(f"--axes: the combinations {other} and {words} are the same run")
    return len(seen)


def with_whole_path(word: str) -> str:
    """An override as it holds in any folder."""
    key, _, text = word.partition("=")
    path = read_value(key, text) if key in _FILES else None
    return as_words({key: _whole_path(key, path)})[0] if path else word


def _whole_path(key: str, value: str) -> str:
    """The value of a setting that names a file; one that names a recipe or a module stays."""
    of_file = ".py:" in value if key == "model.class" else not value.startswith(FROM_RECIPE)
    return str(Path(value).resolve()) if of_file else value


def needs_folder(
    experiment: Experiment, recipe: Recipe, parameters: Mapping[str, Sequence[Any]], overrides: Sequence[str]
) -> bool:
    """Whether any setting names a file, a module or a recipe that is found from the folder one stands in.

    `parameters` and the words of `overrides` are those of the sweep file.
    """
    layers = [recipe.layer, experiment.layer, *experiment.under.values(), override_layer(overrides)]
    for row in experiment.rows.values():
        layers += [row.layer, *row.under.values()]
    named = [layer.values.get(key) for layer in layers for key in _FILES]
    named += [value for key in _FILES for value in parameters.get(key, ())]
    return any(isinstance(value, str) and not _is_whole(value) for value in named)


def _is_whole(value: str) -> bool:
    """Whether a setting that names a file, a module or a recipe means the same in any folder."""
    if value.startswith(FROM_RECIPE):
        return find(value.removeprefix(FROM_RECIPE), "recipe").is_absolute()  # the package's own are
    return not value or Path(value).is_absolute()


def sweep_file(title: str, parameters: Mapping[str, Sequence[Any]], command: Sequence[str], **of_sweep: Any) -> str:
    """The YAML of a W&B sweep: a grid over parameters, and the command that an agent calls for each point of it.

    Written by PyYAML, for W&B reads it with that: YAML 1.1, where `1e-3` without a point is a string.
    """
    import yaml

    tree = {
        "name": title,
        **{key: value for key, value in of_sweep.items() if value is not None},
        "method": "grid",
        "program": "ablate",
        "parameters": {key: {"values": list(values)} for key, values in parameters.items()},
        "command": [*command, "--config-json", "${args_json_file}"],
    }
    head = "# `wandb sweep FILE` registers this sweep of W&B; `wandb agent ID` runs it,\n# wherever these paths are.\n"
    return head + yaml.safe_dump(tree, sort_keys=False, width=1000, allow_unicode=True)


def register(text: str, project: str | None, entity: str | None) -> str:
    """Registers a sweep file with W&B and returns what agents know it by. Raises RequestError where that fails."""
    import sys
    from contextlib import redirect_stdout

    import yaml

    from metaformer_ablate.tracking.tracking import Tracking

    how = Tracking().resolve(project, entity)
    if how is None or how["mode"] != "online":
        raise RequestError("--create needs W&B online: a login (`wandb login`), a network, and WANDB_MODE unset")
    import wandb

    try:
        with redirect_stdout(sys.stderr):  # W&B prints
            identity = wandb.sweep(yaml.safe_load(text), entity=entity, project=how["project"])
    except Exception as error:  # whatever W&B or the network says
        raise RequestError(f"--create: W&B refused: {type(error).__name__}: {error}") from None
    return "/".join(part for part in (entity, how["project"], identity) if part)
