"""An experiment under a recipe: the spec of every row, and what to know of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.settings.layers import Layer, digest
from metaformer_ablate.spec.experiment import Experiment, Recipe, Row, load_experiment, load_recipe
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import as_words, override_layer
from metaformer_ablate.tasks.registry import task_of

MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Combination:
    """Two rows of an experiment at once: a row with the changes of both, and its spec or why it has none."""

    rows: tuple[str, str]
    row: Row
    spec: RunSpec | None
    why: str | None


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
    combinations: tuple[Combination, ...] = ()  # the interactions that the experiment asks for
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what trials chose for single rows

    @property
    def key(self) -> str:
        """`experiment.recipe`, and of overrides a digest: names the files that belong to the plan."""
        overrides = [digest(sorted(self.overrides))[:6]] if self.overrides else []
        return ".".join([self.experiment.name, self.recipe.name, *overrides])

    def everything(self) -> list[tuple[str, RunSpec]]:
        """Name and spec of each row and of each combination."""
        together = [(each.row.name, each.spec) for each in self.combinations if each.spec is not None]
        return [*self.specs.items(), *together]

    def all_reasons(self) -> dict[str, str]:
        """Name of each row and each combination that makes no sense under the recipe, and why."""
        return {**self.not_applicable, **{each.row.name: each.why for each in self.combinations if each.why}}

    def spec(self, row: str, seed: int) -> RunSpec:
        return self.specs[row].with_seed(seed)


# What a row sets besides, by its name: dotted path to value.
Choices = Mapping[str, Mapping[str, Any]]


def plan(
    experiment: str | Experiment,
    recipe: str | Recipe = "digits",
    overrides: Sequence[str] | Layer = (),
    *,
    baseline_only: bool = False,
    choices: Choices | None = None,
) -> Plan:
    """Resolves every row of an experiment, or its baseline, under a recipe with words or a layer of overrides.

    Names are looked up, paths are taken as they are. `choices` are settings of single rows over those of the file, as
    `ablate tune` found them. Two rows that resolve to the same spec are an error.
    """
    untouched = load_experiment(experiment) if isinstance(experiment, str) else experiment
    under = load_recipe(recipe) if isinstance(recipe, str) else recipe
    choices = choices or {}
    rows = {name: _with_choice(row, under, choices) for name, row in untouched.rows.items()}
    chosen = replace(untouched, rows=rows)
    over_all = overrides if isinstance(overrides, Layer) else override_layer(overrides)
    words = as_words(overrides.values) if isinstance(overrides, Layer) else list(overrides)
    specs: dict[str, RunSpec] = {}
    not_applicable: dict[str, str] = {}
    seen: dict[str, str] = {}
    for row in [chosen.rows[chosen.baseline]] if baseline_only else chosen.rows.values():
        spec, why = _resolve_row(chosen, row, under, over_all)
        if (other := seen.setdefault(spec.run_id, row.name)) != row.name:
            cause = f" under the overrides {' '.join(words)}" if words else ""
            raise RequestError(
                f"{chosen.source}: rows {other!r} and {row.name!r} are the same run{cause}; "
                f"each row of an experiment must differ from every other"
            )
        if why is not None:
            not_applicable[row.name] = why
        else:
            specs[row.name] = spec
    pairs = () if baseline_only else chosen.interactions
    together = tuple(_combination(untouched, pair, under, over_all, seen, choices) for pair in pairs)
    return Plan(chosen, under, specs, not_applicable, tuple(words), together, choices)


def _combination(
    chosen: Experiment,
    pair: tuple[str, str],
    under: Recipe,
    over_all: Layer,
    seen: Mapping[str, str],
    choices: Choices,
) -> Combination:
    """Raises RequestError where the rows set one key to two values, or where one of them changes nothing then.

    `seen` has the row of each run id.
    """
    first, second = (chosen.rows[name] for name in pair)
    about = f"{chosen.source}: interactions: {first.name} and {second.name}"
    theirs = second.sets(under.name)
    for path, value in first.sets(under.name).items():
        if theirs.get(path, value) != value:
            raise RequestError(
                f"{about} both set {path}, to {shown(value)} and {shown(theirs[path])}; "
                f"allowed: two rows that set different keys"
            )
    row = Row(
        name=f"{first.name}+{second.name}",
        label=f"{first.label} and {second.label}",
        group="",
        layer=_both(first.layer, second.layer),
        under={
            name: _both(*(side.under.get(name, Layer({}, side.layer.where)) for side in (first, second)))
            for name in {**first.under, **second.under}
        },
        paper={},
        notes=(),
    )
    row = _with_choice(row, under, choices)
    spec, why = _resolve_row(chosen, row, under, over_all)
    if (same := seen.get(spec.run_id)) in (*pair, chosen.baseline):
        raise RequestError(f"{about} together are the run of row {same!r}; one of them changes nothing then")
    return Combination(pair, row, None if why else spec, why)


def _with_choice(row: Row, under: Recipe, choices: Choices) -> Row:
    """The row with what was chosen for it, which it then sets under the recipe."""
    if row.name not in choices:
        return row
    own = Layer(dict(choices[row.name]), lambda path: "chosen by trials", True, f"row {row.name!r}")
    before = row.under.get(under.name, Layer({}, row.layer.where))
    return replace(row, under={**row.under, under.name: _both(before, own)})


def _both(first: Layer, second: Layer) -> Layer:
    def where(path: str) -> str:
        return (second if path in second.values else first).where(path)

    about = " with ".join(layer.about for layer in (first, second) if layer.about)
    return Layer({**first.values, **second.values}, where, True, about)


def _resolve_row(
    chosen: Experiment, row: Row, under: Recipe, over_all: Layer | None, before: tuple[str, ...] = ()
) -> tuple[RunSpec, str | None]:
    """The spec of a row under a recipe, its seed 0, and why it is not applicable there, if it is not.

    `over_all` are overrides; `before` are the recipes whose runs of the row start from this one.
    """
    spec = resolve(row_layers(chosen, row, under, over_all))
    why = task_of(spec).not_applicable(spec)
    if (name := spec.model.init_recipe) is not None:
        chain = (*before, under.name)
        if name in chain:
            raise RequestError(
                f"{chosen.source}: row {row.name!r}: model.init_from is {spec.model.init_from!r} under the recipe "
                f"{under.name}, which starts from itself: {' -> '.join((*chain, name))}; allowed: another recipe"
            )
        source, why_not = _resolve_row(chosen, row, load_recipe(name), None, chain)
        spec = spec.started_from(source)
        why = why or (why_not and f"it starts from its run under {name}, where {why_not}")
    return spec, why


def row_layers(chosen: Experiment, row: Row, under: Recipe, over_all: Layer | None) -> list[Layer]:
    """The settings of a row: the recipe's, the experiment's, its own, and overrides of the command line."""
    layers = [under.layer]
    for place in (chosen, row):
        layers += [place.layer, *([place.under[under.name]] if under.name in place.under else [])]
    if over_all is not None:
        layers.append(Layer(over_all.values, over_all.where, True, f"row {row.name!r}"))
    return layers


def parse_seeds(text: str) -> tuple[int, ...]:
    """`3` means seeds 0, 1, 2; `0,2,5` means those; `4,` means seed 4 alone."""
    allowed = "allowed: a number of seeds (3 means 0,1,2) or a list of different seeds of at least 0 (0,1,2)"
    words = text.removesuffix(",").split(",")
    if not all(re.fullmatch("-?[0-9]{1,20}", word, re.ASCII) for word in words):
        raise RequestError(f"--seeds is {shown(text)}; {allowed}")
    numbers = tuple(int(word) for word in words)
    if "," not in text and numbers[0] > MOST_SEEDS:
        raise RequestError(f"--seeds is {text!r}; {allowed}, at most {MOST_SEEDS} of them")
    seeds = numbers if "," in text else tuple(range(numbers[0]))
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**31:
        raise RequestError(f"--seeds is {text!r}; {allowed}")
    if len(set(seeds)) < len(seeds):
        repeated = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise RequestError(f"--seeds is {text!r}: seed {repeated} is repeated; {allowed}")
    return seeds
