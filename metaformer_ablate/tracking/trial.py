"""One run of a W&B sweep: what its words and its JSON say."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError, shown, unknown
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.yaml_reader import YamlFile, kind, parse
from metaformer_ablate.spec.known import flatten
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.spec.run_spec import SECTION_NAMES
from metaformer_ablate.spec.words import is_integer, is_text, read_value

_CHOICES = ("row", "seed", "recipe")


def _whole(value: Any) -> Any:
    """W&B draws from `q_uniform` and its like as floats: 32.0 is the 32 of a field of integers."""
    if isinstance(value, list):
        return [_whole(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


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


def split_trial(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names, then `key=value` words, from all forms in which agents write settings.

    These are `key=value`, `--key=value`, `--key value` and `--flag`, which is `flag=true`. A word after `--key` is its
    value unless it is a setting itself.
    """
    names: list[str] = []
    settings: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            (settings if "=" in word else names).append(word)
        elif "=" in word:
            settings.append(word.removeprefix("--"))
        else:
            value = left.pop(0) if left and not _is_setting(left[0]) else "true"
            settings.append(f"{word.removeprefix('--')}={value}")
    return names, settings


def _is_setting(word: str) -> bool:
    key, equals, _ = word.partition("=")
    known = key in _CHOICES or key.partition(".")[0] in SECTION_NAMES or key.startswith("_wandb")
    return word.startswith("--") or bool(equals and known)


def read_trial(words: Sequence[str], config: Path | None, recipe: str | None) -> Trial:
    """A trial from `key=value` words, a JSON file of dotted or nested keys, and --recipe.

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
            if path not in _CHOICES and top not in SECTION_NAMES:
                allowed = [*_CHOICES, *(f"{name}." for name in SECTION_NAMES)]
                raise RequestError(f"{where(path)}: {unknown('key', path, allowed)}")
            if path in trial.where:
                raise RequestError(f"{where(path)}: {path} is set twice, first in {trial.where[path]}")
            trial.where[path] = where(path)
            whole = path == "seed" or is_integer(path)
            (chosen if path in _CHOICES else trial.overrides)[path] = _whole(value) if whole else value

    if config is not None:
        file = YamlFile(config)  # JSON is YAML, and this one has line numbers and refuses repeated keys
        add(file.data, lambda path: file.where(path) if path in file.data else file.where(*path.split(".")))
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise RequestError(
                f"command line: {shown(word)} is not a setting; write key=value, for example row=NAME seed=3"
            )
        if not key.startswith("_wandb"):  # nor is its value read
            value = text if key in ("row", "recipe") else _value(key, text)
            add({key: value}, lambda path: "command line")
    for key in ("row", "recipe"):
        if key in chosen and not isinstance(chosen[key], str):
            raise RequestError(
                f"{trial.where[key]}: {key} is {shown(chosen[key])} ({kind(chosen[key])}); allowed: a name"
            )
    trial.row, trial.recipe = chosen.get("row"), chosen.get("recipe", trial.recipe)
    trial.seed = chosen.get("seed", 0)
    if isinstance(trial.seed, bool) or not isinstance(trial.seed, int) or not 0 <= trial.seed < 2**31:
        place = trial.where["seed"]
        raise RequestError(f"{place}: seed is {shown(trial.seed)}; allowed: an integer from 0 to {2**31 - 1}")
    return trial


def _value(path: str, text: str) -> Any:
    """The value of a word: as in `ablate run`, or what Python prints, as agents write None, True and lists."""
    if text == "None":
        return None
    if text[:1] in ("[", "{", "(") and not is_text(path):
        try:
            return parse(json.dumps(ast.literal_eval(text)), f"command line: {path}")
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            pass  # a list as YAML writes it
    return read_value(path, text)


def plan_of(experiment: str, trial: Trial) -> tuple[Plan, str]:
    """The plan of one row or combination of rows that a trial is of, and its name. As in `ablate run`, overrides are
    for all rows."""
    chosen = plan(experiment, trial.recipe, trial.layer(), baseline_only=trial.row is None)
    row = chosen.experiment.baseline if trial.row is None else trial.row
    where = trial.where.get("row", chosen.experiment.source)
    specs, reasons = dict(chosen.everything()), chosen.all_reasons()
    if row not in {**specs, **reasons}:
        raise RequestError(f"{where}: {unknown('row', row, {**specs, **reasons})}")
    if row in reasons:
        raise RequestError(f"{where}: row {row!r} is not applicable: {reasons[row]}")
    return replace(chosen, specs={row: specs[row]}, combinations=()), row
