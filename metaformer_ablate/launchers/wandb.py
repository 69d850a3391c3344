"""W&B agents: the sweep file that tells them what to call, and the settings that they call `ablate trial` with."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from metaformer_ablate.experiment import Plan, plan
from metaformer_ablate.spec import SECTIONS, Layer, as_words, flatten, unknown
from metaformer_ablate.yaml_reader import RequestError, YamlFile, kind, parse

_CHOICES = ("row", "seed", "recipe")


# ---------------------------------------------------------------------------------------------------------------------
# What an agent calls a trial with


@dataclass
class Trial:
    """One run, as a JSON file and words name it. `where` says where each value stood."""

    row: str | None = None  # None: the baseline with the overrides, whatever that makes of the other rows
    seed: int = 0
    recipe: str = "digits"
    overrides: dict[str, Any] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)

    def layer(self) -> Layer:
        return Layer(self.overrides, lambda path: self.where.get(path, "command line"), strict=True)


def read_trial(words: Sequence[str], config: Path | None, recipe: str | None) -> Trial:
    """A trial from `key=value` or `--key=value` words, a JSON file of dotted or nested keys, and --recipe.

    Keys that begin with `_wandb` are dropped. Raises RequestError for a key that stands twice, that there is not, or
    whose value cannot be.
    """
    trial = Trial()
    chosen: dict[str, Any] = {} if recipe is None else {"recipe": recipe}
    trial.where = dict.fromkeys(chosen, "command line")

    def add(tree: Mapping[str, Any], where: Any) -> None:
        ours = {key: value for key, value in tree.items() if not str(key).startswith("_wandb")}
        for path, value in flatten(ours, where).items():
            top = path.partition(".")[0]
            if path not in _CHOICES and top not in SECTIONS:
                raise RequestError(f"{where(path)}: {unknown('key', path, [*_CHOICES, *(f'{s}.' for s in SECTIONS)])}")
            if path in trial.where:
                raise RequestError(f"{where(path)}: {path} is set twice, first in {trial.where[path]}")
            trial.where[path] = where(path)
            (chosen if path in _CHOICES else trial.overrides)[path] = value

    if config is not None:
        file = YamlFile(config)  # JSON is YAML, and this one has line numbers and refuses repeated keys
        add(file.data, lambda path: file.where(path) if path in file.data else file.where(*path.split(".")))
    for word in words:
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals or not key:
            raise RequestError(f"command line: {word!r} is not a setting; write key=value, for example row=NAME seed=3")
        if not key.startswith("_wandb"):  # nor is its value read
            value = text if key in ("row", "recipe") else _value(text, f"command line: {key}")
            add({key: value}, lambda path: "command line")
    for key in ("row", "recipe"):
        if key in chosen and not isinstance(chosen[key], str):
            raise RequestError(f"{trial.where[key]}: {key} is {chosen[key]!r} ({kind(chosen[key])}); allowed: a name")
    trial.row, trial.recipe = chosen.get("row"), chosen.get("recipe", trial.recipe)
    trial.seed = chosen.get("seed", 0)
    if isinstance(trial.seed, bool) or not isinstance(trial.seed, int) or not 0 <= trial.seed < 2**31:
        place = trial.where["seed"]
        raise RequestError(f"{place}: seed is {trial.seed!r}; allowed: an integer from 0 to {2**31 - 1}")
    return trial


def _value(text: str, source: str) -> Any:
    """The value of a word: YAML, or what Python prints, as agents write None, True and lists."""
    if text == "None":
        return None
    if text[:1] in ("[", "{", "("):
        try:
            value = ast.literal_eval(text)
            return list(value) if isinstance(value, tuple) else value
        except (ValueError, SyntaxError):
            pass  # a list as YAML writes it
    return parse(text, source)


def plan_of(experiment: str, trial: Trial) -> tuple[Plan, str]:
    """The plan that a trial is of, and the row. As in `ablate run`, overrides are for all rows."""
    chosen = plan(experiment, trial.recipe, trial.layer(), baseline_only=trial.row is None)
    row = chosen.experiment.baseline if trial.row is None else trial.row
    where = trial.where.get("row", chosen.experiment.source)
    if row not in chosen.experiment.rows:
        raise RequestError(f"{where}: {unknown('row', row, chosen.experiment.rows)}")
    if row in chosen.not_applicable:
        raise RequestError(f"{where}: row {row!r} is not applicable: {chosen.not_applicable[row]}")
    return chosen, row


# ---------------------------------------------------------------------------------------------------------------------
# The sweep file


def read_axes(words: Sequence[str]) -> dict[str, list[Any]]:
    """{path: values} of `key.path=v1,v2` words; a value may be a list in brackets."""
    axes: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or not text:
            raise RequestError(f"--axes: {word!r} is not an axis; write key.path=v1,v2")
        if key in axes:
            raise RequestError(f"--axes: {key} is set twice")
        axes[key] = parse(f"[{text}]", f"--axes: {key}")
        if repeated := [value for i, value in enumerate(axes[key]) if value in axes[key][:i]]:
            raise RequestError(f"--axes: {key} has the value {repeated[0]!r} twice")
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
    """An override as it holds in any folder: `model.init_from` is the one that names a file."""
    key, _, text = word.partition("=")
    return f"{key}={Path(text).resolve()}" if key == "model.init_from" and text != "null" else word


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
    head = "# W&B sweep: `wandb sweep FILE` registers it, `wandb agent ...` runs it wherever these paths are.\n"
    return head + yaml.safe_dump(tree, sort_keys=False, width=1000, allow_unicode=True)


def register(text: str, project: str | None, entity: str | None) -> str:
    """Registers a sweep file with W&B and returns what agents know it by. Raises RequestError where that fails."""
    import sys
    from contextlib import redirect_stdout

    import yaml

    from metaformer_ablate.tracking import settle

    how = settle(project, entity)
    if how is None or how["mode"] != "online":
        raise RequestError("--create needs W&B online: a login (`wandb login`), a network, and WANDB_MODE unset")
    import wandb

    try:
        with redirect_stdout(sys.stderr):  # W&B prints
            identity = wandb.sweep(yaml.safe_load(text), entity=entity, project=how["project"])
    except Exception as error:  # whatever W&B or the network says
        raise RequestError(f"--create: W&B refused: {type(error).__name__}: {error}") from None
    return "/".join(part for part in (entity, how["project"], identity) if part)
