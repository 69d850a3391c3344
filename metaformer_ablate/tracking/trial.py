"""One run of a W&B sweep: what its words and its JSON say."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.yaml_reader import YamlFile, kind, parse
from metaformer_ablate.spec.merge import flatten
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.spec.run_spec import SECTIONS

_CHOICES = ("row", "seed", "recipe")


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
