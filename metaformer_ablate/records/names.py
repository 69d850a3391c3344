"""What people call runs: the rows of experiments that show them, and the settings by which a run differs from its row.

A record holds no names, for experiments are renamed and share runs: names are looked up in the experiments of today.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.compare import read_spec
from metaformer_ablate.records.record import Record
from metaformer_ablate.settings.layers import flatten
from metaformer_ablate.spec.experiment import find_all, load_experiment, load_recipe
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import as_words


@dataclass(frozen=True)
class RunName:
    """The rows that show a run ("table5/identity"), their recipe, and overrides where no row is the run itself."""

    rows: tuple[str, ...]
    recipe: str | None
    seed: int
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        """`table5/identity seed 0`, `table5/identity with train.epochs=2, seed 0`, or the seed alone."""
        if not self.rows:
            return f"seed {self.seed}"
        changed = f"with {' '.join(self.overrides)}, " if self.overrides else ""
        return f"{self.rows[0]} {changed}seed {self.seed}"


def names_of(specs: Sequence[RunSpec], closest: bool = True) -> dict[str, RunName]:
    """The name of each run by its id, from the experiments and recipes as they stand.

    With `closest` a run of no row is named by the row with its model whose other settings are nearest to its own;
    where there is none it has no rows.
    """
    wanted = {spec.run_id: spec for spec in specs}
    seeds = sorted({spec.seed for spec in specs})
    rows: dict[str, list[str]] = {}
    recipes: dict[str, str] = {}
    for recipe, place, planned in _planned(specs, exact=True):
        for run_id in planned.ids(seeds):
            if run_id in wanted and recipes.setdefault(run_id, recipe) == recipe:
                rows.setdefault(run_id, []).append(place)
    near = _closest({key: spec for key, spec in wanted.items() if key not in rows}) if closest else {}
    found = {}
    for run_id, spec in wanted.items():
        if run_id in near:
            place, recipe, overrides = near[run_id]
            found[run_id] = RunName((place,), recipe, spec.seed, overrides)
        else:
            found[run_id] = RunName(tuple(rows.get(run_id, ())), recipes.get(run_id), spec.seed)
    return found


def with_names(records: Sequence[Record], closest: bool = True) -> list[Record]:
    """Records with the names of their runs, as `names_of` gives them; None where no row is known of one, or its spec is
    of other code."""
    specs = {}
    for record in records:
        with suppress(RequestError):
            specs[record.run_id] = read_spec(record)
    names = {run_id: str(name) for run_id, name in names_of(list(specs.values()), closest).items() if name.rows}
    return [replace(record, name=names.get(record.run_id)) for record in records]


def _closest(specs: Mapping[str, RunSpec]) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """(row, recipe, overrides) of the planned row with the model of a run and the fewest other differences."""
    settings = {key: _settings(spec) for key, spec in specs.items()}
    found: dict[str, tuple[str, str, tuple[str, ...]]] = {}
    for recipe, place, planned in _planned(list(specs.values()), exact=False):
        theirs = _settings(planned)
        for key, own in settings.items():
            apart = {path: own.get(path) for path in own.keys() | theirs.keys() if own.get(path) != theirs.get(path)}
            if any(path.startswith("model.") for path in apart):
                continue
            if key not in found or len(apart) < len(found[key][2]):
                found[key] = (place, recipe, tuple(as_words(dict(sorted(apart.items())))))
    return found


def _settings(spec: RunSpec) -> dict[str, Any]:
    """What a spec sets, but for the id of the run that it starts from, which follows from the seed."""
    tree = {key: value for key, value in spec.to_dict().items() if isinstance(value, dict)}
    return {path: value for path, value in flatten(tree, str).items() if path != "model.init_run"}


def _planned(specs: Sequence[RunSpec], exact: bool) -> Iterator[tuple[str, str, RunSpec]]:
    """(recipe, "experiment/row", spec) of every row that may be the run of a spec, or one on the same data.

    To resolve every row of every experiment under every recipe takes seconds. With `exact` a row is passed over
    whose recipe or experiment sets a number of data and training that no spec has.
    """
    wanted = [_settings(spec) for spec in specs]
    experiments = _largest_first() if wanted else []
    for recipe in find_all("recipe"):
        for experiment in experiments:
            try:
                if not any(_may_be(own, _set(recipe, experiment), exact) for own in wanted):
                    continue
                chosen = plan(experiment, recipe)
            except RequestError:
                continue  # a file under work says nothing about records
            yield from ((recipe, f"{experiment}/{row}", spec) for row, spec in chosen.specs.items())


def _largest_first() -> list[str]:
    """The experiments that load, those of many rows first: a run of several is easily one of the largest."""
    sizes = {}
    for name in find_all("experiment"):
        with suppress(RequestError):
            sizes[name] = len(load_experiment(name).rows)
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def _set(recipe: str, experiment: str) -> dict[str, Any]:
    """What a recipe and an experiment set for every row, but for what a row sets again."""
    chosen, under = load_experiment(experiment), load_recipe(recipe)
    tree = {**under.layer.values, **chosen.layer.values}
    tree |= chosen.under[recipe].values if recipe in chosen.under else {}
    again = {path for row in chosen.rows.values() for path in row.sets(recipe)} | {"train.epochs", "train.steps"}
    return {path: value for path, value in tree.items() if path not in again}


def _may_be(own: Mapping[str, Any], given: Mapping[str, Any], exact: bool) -> bool:
    """Whether a run may be one of rows for which so much is set; what nothing reads is null in a spec."""
    if own.get("data.name") != given.get("data.name", own.get("data.name")):
        return False
    numbers = {path: value for path, value in given.items() if path.startswith(("data.", "train."))} if exact else {}
    return all(own.get(path) in (value, None) for path, value in numbers.items() if type(value) in (int, float))
