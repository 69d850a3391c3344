"""Experiments and recipes: finding their files, reading them strictly, and the runs an experiment consists of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from metaformer_ablate.models.parts import MIXERS
from metaformer_ablate.spec import Layer, RunSpec, as_words, flatten, override_layer, resolve, stage_sizes, unknown
from metaformer_ablate.spec import not_applicable as reason_not_applicable
from metaformer_ablate.yaml_reader import RequestError, YamlFile, kind, nearest

_EXPERIMENT_KEYS = ("title", "baseline", "set", "under", "rows")
_ROW_KEYS = ("label", "group", "set", "under", "paper", "notes")
_PAPER_KEYS = ("table", "top1", "params_m", "frozen_params_m", "macs_g", "note")
MOST_SEEDS = 10_000
_RECIPE_KEYS = ("title", "model", "data", "train")


@dataclass(frozen=True)
class Row:
    """One line of an ablation table. `paper` holds the paper's numbers for it, as printed; may be empty.

    `under` has what the row sets under one recipe alone, by the recipe's name: the paper's rows do not all share one.
    """

    name: str
    label: str
    group: str
    layer: Layer
    under: dict[str, Layer]
    paper: dict[str, Any]
    notes: tuple[str, ...]

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


@dataclass(frozen=True)
class Plan:
    """An experiment under a recipe with overrides: the resolved spec of each row, its seed still 0.

    Rows that make no sense under the recipe are in `not_applicable`, with the reason, and not in `specs`.
    """

    experiment: Experiment
    recipe: Recipe
    specs: dict[str, RunSpec] = field(default_factory=dict)
    not_applicable: dict[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()  # words of the command line

    def spec(self, row: str, seed: int) -> RunSpec:
        return self.specs[row].with_seed(seed)


# ---------------------------------------------------------------------------------------------------------------------
# Finding files


def _package_folder() -> Path:
    """The experiments that come with the package: in the wheel, or beside the package in a checkout."""
    try:
        return Path(str(resources.files("metaformer_ablate.experiments")))
    except ModuleNotFoundError:
        return Path(__file__).resolve().parent.parent / "experiments"


def _folders(kind_of: str) -> list[Path]:
    tail = Path("recipes") if kind_of == "recipe" else Path()
    return [Path("experiments") / tail, _package_folder() / tail]


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
        path = Path(name)
        if not path.is_file():
            raise RequestError(f"{kind_of} {name!r}: no such file")
        return path
    for folder in _folders(kind_of):
        path = folder / f"{name}.yaml"
        if "/" not in name and path.is_file():
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


# ---------------------------------------------------------------------------------------------------------------------
# Reading files


def _check_keys(file: YamlFile, tree: Any, allowed: Sequence[str], *at: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise RequestError(f"{file.where(*at)}: {'.'.join(at)} must be a mapping, found {kind(tree)}")
    for key in tree:
        if key not in allowed:
            path = ".".join((*at, str(key)))
            raise RequestError(
                f"{file.where(*at, str(key))}: unknown key {path!r}{nearest(str(key), list(allowed))}; "
                f"allowed: {', '.join(allowed)}"
            )
    return tree


def _text(file: YamlFile, tree: dict[str, Any], default: str, *at: str) -> str:
    value = tree.get(at[-1], default)
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{file.where(*at)}: {'.'.join(at)} is {value!r} ({kind(value)}); allowed: a line of text")
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
    )


def _row(file: YamlFile, name: str, tree: Any) -> Row:
    at = ("rows", name)
    tree = _check_keys(file, tree if tree is not None else {}, _ROW_KEYS, *at)
    paper = _check_keys(file, tree.get("paper") or {}, _PAPER_KEYS, *at, "paper")
    for key, value in paper.items():
        kinds: tuple[type, ...] = {"note": (str,), "table": (int, str)}.get(key, (int, float))
        finite = not isinstance(value, float) or math.isfinite(value)
        if isinstance(value, bool) or not isinstance(value, kinds) or not finite:
            allowed = "a line of text" if key == "note" else "a number as the paper prints it"
            path = ".".join((*at, "paper", key))
            raise RequestError(f"{file.where(*at, 'paper', key)}: {path} is {value!r}; allowed: {allowed}")
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
        paper=dict(paper),
        notes=tuple(notes),
    )


def _under(
    file: YamlFile, tree: dict[str, Any], at: tuple[str, ...], strict: bool = False, about: str = ""
) -> dict[str, Layer]:
    """{recipe: what is set under it alone}, from the key `under` at a place of a file."""
    recipes = _check_keys(file, tree.get("under") or {}, list(find_all("recipe")), *at, "under")
    return {
        recipe: _settings(file, values, (*at, "under", recipe), strict=strict, about=about)
        for recipe, values in recipes.items()
    }


def first_title(path: Path) -> str:
    """The title of an experiment or recipe without checking the rest: `ablate list` shows what it finds."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("title:"):
            return line.removeprefix("title:").strip().strip("\"'")
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def plan(
    experiment: str, recipe: str = "digits", overrides: Sequence[str] | Layer = (), *, baseline_only: bool = False
) -> Plan:
    """Resolves every row of an experiment, or its baseline, under a recipe with words or a layer of overrides.

    Two rows that resolve to the same spec are an error.
    """
    chosen, under = load_experiment(experiment), load_recipe(recipe)
    over_all = overrides if isinstance(overrides, Layer) else override_layer(overrides)
    words = as_words(overrides.values) if isinstance(overrides, Layer) else list(overrides)
    specs: dict[str, RunSpec] = {}
    not_applicable: dict[str, str] = {}
    seen: dict[str, str] = {}
    for row in [chosen.rows[chosen.baseline]] if baseline_only else chosen.rows.values():
        over = Layer(over_all.values, over_all.where, True, f"row {row.name!r}")
        layers = [under.layer]
        for place in (chosen, row):
            layers += [place.layer, *([place.under[under.name]] if under.name in place.under else [])]
        spec = resolve([*layers, over])
        if (other := seen.setdefault(spec.run_id, row.name)) != row.name:
            cause = f" under the overrides {' '.join(words)}" if words else ""
            raise RequestError(
                f"{chosen.source}: rows {other!r} and {row.name!r} are the same run{cause}; "
                f"each row of an experiment must differ from every other"
            )
        if (why := reason_not_applicable(spec)) is not None:
            not_applicable[row.name] = why
        else:
            specs[row.name] = spec
    return Plan(chosen, under, specs, not_applicable, tuple(words))


def row_notes(plan: Plan, name: str) -> list[str]:
    """What a reader of a row has to know: its own notes, what of its data and training is not the baseline's, and the
    stages where a window covers the whole map or there is nothing to mix."""
    notes = list(plan.experiment.rows[name].notes)
    if name in plan.not_applicable:
        return [*notes, f"not applicable: {plan.not_applicable[name]}"]
    spec = plan.specs[name]
    baseline = plan.specs.get(plan.experiment.baseline)
    if baseline is not None and (changes := differences(spec, baseline, ("data", "train"))):
        notes.append(
            "not the baseline's recipe: " + ", ".join(f"{path} {there} -> {here}" for path, here, there in changes)
        )
    covered: dict[str, list[str]] = {}
    for i, (height, width) in enumerate(stage_sizes(spec)):
        mixer = spec.model.stages()[2][i]
        part = MIXERS[mixer]
        window = spec.model.at_stage(part.window, i) if part.window else None
        place = f"stage {i + 1} ({height} x {width})"
        if not part.mixes:
            continue
        if height == width == 1:
            covered.setdefault(f"{mixer} has nothing to mix", []).append(place)
        elif window is not None and window // 2 >= max(height, width) - 1:
            covered.setdefault(f"a window of {window} covers the whole map", []).append(place)
    notes += [f"{what} in {', '.join(places)}" for what, places in covered.items()]
    return notes


def differences(
    spec: RunSpec, baseline: RunSpec, sections: Sequence[str] = ("model", "data", "train")
) -> list[tuple[str, Any, Any]]:
    """(path, value, the baseline's value) of every resolved field that differs, seeds apart."""
    found = []
    for section in sections:
        here, there = (_flat(tree.to_dict()[section], section) for tree in (spec, baseline))
        for path in sorted(here.keys() | there.keys()):
            if here.get(path) != there.get(path):
                found.append((path, here.get(path), there.get(path)))
    return found


def _flat(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}"
        flat |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return flat


def parse_seeds(text: str) -> tuple[int, ...]:
    """`3` means seeds 0, 1, 2; `0,2,5` means those; `4,` means seed 4 alone."""
    allowed = "allowed: a number of seeds (3 means 0,1,2) or a list of different seeds of at least 0 (0,1,2)"
    words = text.removesuffix(",").split(",")
    try:
        numbers = tuple(int(word) for word in words)
    except ValueError:
        raise RequestError(f"--seeds is {text!r}; {allowed}") from None
    if "," not in text and numbers[0] > MOST_SEEDS:
        raise RequestError(f"--seeds is {text!r}; {allowed}, at most {MOST_SEEDS} of them")
    seeds = numbers if "," in text else tuple(range(numbers[0]))
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31:
        raise RequestError(f"--seeds is {text!r}; {allowed}")
    if len(set(seeds)) < len(seeds):
        repeated = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise RequestError(f"--seeds is {text!r}: seed {repeated} is repeated; {allowed}")
    return seeds
