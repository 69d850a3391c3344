"""Experiments and recipes: finding their files, reading them strictly, and the runs an experiment consists of."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError, nearest, shown, unknown
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.yaml_reader import YamlFile, kind
from metaformer_ablate.spec.interactions import read_pairs
from metaformer_ablate.spec.known import flatten
from metaformer_ablate.system.files import open_regular, read_regular
from metaformer_ablate.tasks.registry import metrics_of_all_tasks

_EXPERIMENT_KEYS = ("title", "baseline", "set", "under", "rows", "interactions")


_ROW_KEYS = ("label", "short", "group", "set", "under", "paper", "notes")


_PAPER_KEYS = ("table", "params_m", "frozen_params_m", "macs_g", "note")  # and every metric of every task


_RECIPE_KEYS = ("title", "model", "data", "train", "task")


@dataclass(frozen=True)
class Row:
    """One line of an ablation table. `paper` holds the paper's numbers for it, as printed; may be empty.

    `under` has what the row sets under one recipe alone, by the recipe's name: the paper's rows do not all share one.
    `paper_under` has what the paper prints of it under one recipe alone: a backbone has a line for each detector.
    """

    name: str
    label: str
    group: str
    layer: Layer
    under: dict[str, Layer]
    paper: dict[str, Any]
    notes: tuple[str, ...]
    paper_under: dict[str, dict[str, Any]] = field(default_factory=dict)
    short: str = ""  # the label where room is scarce, as in figures; empty: the label itself

    def printed(self, recipe: str) -> dict[str, Any]:
        """The paper's numbers for the row under a recipe; may be empty."""
        return {**self.paper, **self.paper_under.get(recipe, {})}

    def sets(self, recipe: str) -> dict[str, Any]:
        """What the row sets under a recipe: dotted path to value."""
        extra = self.under[recipe].values if recipe in self.under else {}
        return {**self.layer.values, **extra}


@dataclass(frozen=True)
class Recipe:
    """Where an experiment is measured: data, model size and training."""

    name: str
    title: str
    layer: Layer


@dataclass(frozen=True)
class Experiment:
    """One ablation table: a baseline and rows that differ from it in what they set.

    `layer` is what all rows set, `under` what they set under one recipe alone.
    """

    name: str
    title: str
    baseline: str
    rows: dict[str, Row]
    layer: Layer
    under: dict[str, Layer]
    source: str
    interactions: tuple[tuple[str, str], ...] = ()  # rows whose changes are also made together


def _package_folder() -> Path:
    """The experiments that come with the package: in the wheel, or beside the package in a checkout."""
    try:
        return Path(str(resources.files("metaformer_ablate.experiments")))
    except ModuleNotFoundError:
        return Path(__file__).resolve().parents[2] / "experiments"


def _folders(kind_of: str) -> list[Path]:
    tail = Path("recipes") if kind_of == "recipe" else Path()
    return [Path("experiments") / tail, _package_folder() / tail]


def package_recipe(name: str) -> str:
    """The path of a recipe that comes with the package, whatever ./experiments has."""
    return str(_package_folder() / "recipes" / f"{name}.yaml")


def find_all(kind_of: str) -> dict[str, Path]:
    """{name: path} of every "experiment" or "recipe"; a file in ./experiments stands before one of the package."""
    found: dict[str, Path] = {}
    for folder in _folders(kind_of):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find(name: str, kind_of: str) -> Path:
    """The file of an "experiment" or "recipe" by name or path. Raises RequestError where there is none."""
    if name.endswith((".yaml", ".yml")):
        try:
            open_regular(name).close()
        except OSError as error:
            raise RequestError(f"{kind_of} {name!r}: {str(error.strerror).lower()}") from None
        return Path(name)
    for folder in _folders(kind_of):
        path = folder / f"{name}.yaml"
        if "/" not in name and os.path.isfile(path):  # False, too, for a name that no file can have
            return path
    elsewhere = kind_of == "experiment" and not Path("experiments").is_dir()
    where = "; there is no folder ./experiments here that could hold others" if elsewhere else ""
    raise RequestError(unknown(kind_of, name, find_all(kind_of)) + where)


def _shown(path: Path) -> str:
    """A path as an error prints it: files of the package by their place in it, the user's own as they are."""
    try:
        return str(Path("experiments") / path.relative_to(_package_folder()))
    except ValueError:
        return str(path)


def _check_keys(file: YamlFile, tree: Any, allowed: Sequence[str], *at: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise RequestError(f"{file.where(*at)}: {'.'.join(at)} must be a mapping, found {kind(tree)}")
    for key in tree:
        if key not in allowed:
            path = ".".join((*at, str(key)))
            raise RequestError(
                f"{file.where(*at, str(key))}: unknown key {shown(path)}{nearest(str(key), list(allowed))}; "
                f"allowed: {', '.join(allowed)}"
            )
    return tree


def _text(file: YamlFile, tree: dict[str, Any], default: str, *at: str) -> str:
    value = tree.get(at[-1], default)
    if not isinstance(value, str) or not value.strip():
        raise RequestError(
            f"{file.where(*at)}: {'.'.join(at)} is {shown(value)} ({kind(value)}); allowed: a line of text"
        )
    return value


def _settings(file: YamlFile, tree: Any, at: tuple[str, ...], strict: bool = False, about: str = "") -> Layer:
    """A layer from the mapping at a place of a file; its keys are dotted, nested or both."""
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise RequestError(f"{file.where(*at)}: {'.'.join(at)} must be a mapping of settings, found {kind(tree)}")

    def where(path: str) -> str:
        # A dotted path may be written in the file in any split of its parts: take the longest that is there.
        keys: list[str] = []
        tree_here, rest = tree, path
        while rest and isinstance(tree_here, dict):
            parts = rest.split(".")
            for i in range(len(parts), 0, -1):
                if (key := ".".join(parts[:i])) in tree_here:
                    keys.append(key)
                    tree_here, rest = tree_here[key], ".".join(parts[i:])
                    break
            else:
                break
        return file.where(*at, *keys)

    return Layer(flatten(tree, where), where, strict=strict, about=about)


@cache
def load_recipe(name: str) -> Recipe:
    """A recipe by name or path."""
    path = find(name, "recipe")
    file = YamlFile(path, _shown(path))
    tree = _check_keys(file, file.data, _RECIPE_KEYS)
    settings = {key: value for key, value in tree.items() if key != "title"}
    return Recipe(path.stem, _text(file, tree, path.stem, "title"), _settings(file, settings, ()))


@cache
def load_experiment(name: str) -> Experiment:
    """An experiment by name or path, its rows in the order of the file."""
    path = find(name, "experiment")
    file = YamlFile(path, _shown(path))
    tree = _check_keys(file, file.data, _EXPERIMENT_KEYS)
    for key in ("baseline", "rows"):
        if key not in tree:
            raise RequestError(f"{file.shown_as}: the key {key!r} is missing; an experiment has a baseline and rows")
    rows_tree = tree["rows"]
    if not isinstance(rows_tree, dict) or not rows_tree:
        raise RequestError(
            f"{file.where('rows')}: rows must be a mapping of row names to rows, found {kind(rows_tree)}"
        )
    rows = {}
    for key in rows_tree:
        if not isinstance(key, str):
            raise RequestError(f"{file.where('rows')}: the row name {key!r} is not a string; quote it")
        rows[key] = _row(file, key, rows_tree[key])
    baseline = tree["baseline"]
    if not isinstance(baseline, str) or baseline not in rows:
        raise RequestError(f"{file.where('baseline')}: baseline: {unknown('row', str(baseline), rows)}")
    return Experiment(
        name=path.stem,
        title=_text(file, tree, path.stem, "title"),
        baseline=baseline,
        rows=rows,
        layer=_settings(file, tree.get("set"), ("set",)),
        under=_under(file, tree, ()),
        source=_shown(path),
        interactions=read_pairs(file, tree.get("interactions"), rows, baseline),
    )


def _row(file: YamlFile, name: str, tree: Any) -> Row:
    at = ("rows", name)
    tree = _check_keys(file, tree if tree is not None else {}, _ROW_KEYS, *at)
    paper, paper_under = _paper(file, tree.get("paper") or {}, *at, "paper")
    notes = tree.get("notes") or []
    notes = [notes] if isinstance(notes, str) else notes
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise RequestError(f"{file.where(*at, 'notes')}: {'.'.join(at)}.notes must be a list of lines of text")
    return Row(
        name=name,
        label=_text(file, tree, name, *at, "label"),
        group=_text(file, tree, "Rows", *at, "group"),
        layer=_settings(file, tree.get("set"), (*at, "set"), strict=True, about=f"row {name!r}"),
        under=_under(file, tree, at, strict=True, about=f"row {name!r}"),
        paper=paper,
        notes=tuple(notes),
        paper_under=paper_under,
        short=_text(file, tree, "-", *at, "short") if "short" in tree else "",
    )


def _paper(file: YamlFile, tree: Any, *at: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The paper's numbers at a place of a file: under any recipe, and {recipe: those under it alone}."""
    recipes = [key for key in tree if isinstance(tree[key], dict)] if isinstance(tree, dict) else []
    keys = (_PAPER_KEYS[0], *metrics_of_all_tasks(), *_PAPER_KEYS[1:])
    _check_keys(file, tree, (*keys, *(recipes and find_all("recipe"))), *at)
    paper = {key: value for key, value in tree.items() if key not in recipes}
    for recipe in recipes:
        if recipe in keys:
            found = shown(tree[recipe])
            raise RequestError(f"{file.where(*at, recipe)}: {'.'.join((*at, recipe))} is {found}; allowed: a number")
        _check_keys(file, tree[recipe], keys, *at, recipe)
    for place, numbers in [(at, paper), *(((*at, recipe), tree[recipe]) for recipe in recipes)]:
        for key, value in numbers.items():
            kinds: tuple[type, ...] = {"note": (str,), "table": (int, str)}.get(key, (int, float))
            finite = not isinstance(value, float) or math.isfinite(value)
            if isinstance(value, bool) or not isinstance(value, kinds) or not finite:
                allowed = "a line of text" if key == "note" else "a number as the paper prints it"
                path = ".".join((*place, key))
                raise RequestError(f"{file.where(*place, key)}: {path} is {shown(value)}; allowed: {allowed}")
    return paper, {recipe: dict(tree[recipe]) for recipe in recipes}


def _under(
    file: YamlFile, tree: dict[str, Any], at: tuple[str, ...], strict: bool = False, about: str = ""
) -> dict[str, Layer]:
    """{recipe: what is set under it alone}, from the key `under` at a place of a file."""
    recipes = _check_keys(file, tree.get("under") or {}, list(find_all("recipe")), *at, "under")
    return {
        recipe: _settings(file, values, (*at, "under", recipe), strict=strict, about=about)
        for recipe, values in recipes.items()
    }


def forget_files() -> None:
    """Has experiments and recipes read again: a program may live longer than what its files say."""
    load_experiment.cache_clear()
    load_recipe.cache_clear()


def first_title(path: Path) -> str:
    """The title of an experiment or recipe without checking the rest: `ablate list` shows what it finds."""
    try:
        text = read_regular(path).decode(errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        if line.startswith("title:"):
            return line.removeprefix("title:").strip().strip("\"'")
    return ""
