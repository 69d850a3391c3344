"""What the report shows: every table that has records, its figures, the runs behind each number, and what is left over.

Reads records only and loads no torch. `collect` finds out what belongs where; `page.py` writes it as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from metaformer_ablate.analysis.report.spec_runs import SpecRuns, key_of, mark_stale, read_variants
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Table
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.seed_counts import path_of as seed_counts_of
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.experiment import Recipe, find_all, load_experiment, load_recipe
from metaformer_ablate.spec.plan import Plan, plan

NO_RECIPE = "no recipe"  # where not one experiment loads, nothing is close to a run


@dataclass(frozen=True)
class RowRef:
    """Where a variant is shown: a row of an experiment under a recipe."""

    recipe: str
    experiment: str
    row: str


@dataclass(frozen=True)
class Section:
    """One experiment under one recipe: its table, and the variant behind each row that has records."""

    plan: Plan
    table: Table
    variants: dict[str, str]  # row to the key of its variant
    missing: int  # rows without a record
    only_baseline: bool  # no other row has one, and there are other rows; then only the baseline is in plan and table
    part_of: str | None = None  # another experiment under this recipe whose table has every row of this one


@dataclass(frozen=True)
class UnplannedRuns:
    """A variant of no table: the planned rows that come closest to it, and (path, its value, theirs) as JSON."""

    variant: str
    nearest: tuple[RowRef, ...]
    differences: tuple[tuple[str, str | None, str | None], ...]


@dataclass(frozen=True)
class Report:
    """Everything that the page shows, in its order."""

    recipes: dict[str, str]  # name to title
    sections: list[Section]
    leftovers: dict[str, list[UnplannedRuns]]  # by recipe
    variants: dict[str, list[SpecRuns]]  # by recipe; the first one is what the others are compared with
    places: dict[str, list[RowRef]]  # of each variant that a table shows
    problems: list[str]  # folders that are no result
    unreadable: list[str]  # experiments and recipes that do not load
    store: Store  # of what was read, without reading it again

    @property
    def tables(self) -> list[Section]:
        """The sections that are tables; of the others only the baseline has records."""
        return [section for section in self.sections if not section.only_baseline]

    @property
    def runs(self) -> int:
        return sum(len(variant.records) for found in self.variants.values() for variant in found)


class CachedStore(Store):
    """A store whose records were all read before; `problems` has what one reader came across, as in a fresh store."""

    def __init__(self, store: Store, records: Mapping[str, Record], problems: Mapping[str, str]):
        super().__init__(store.path)
        self._records, self._problems = records, problems

    def read(self, run_id: str) -> Record | None:
        if run_id in self._problems:
            self.problems[run_id] = self._problems[run_id]
        return self._records.get(run_id)

    def ids(self) -> list[str]:
        return sorted([*self._records, *self._problems])


def collect(store: Store, folder: DataFolder, recipes: Sequence[str] = ()) -> Report:
    """Reads every record once and puts each where it belongs; with `recipes`, only what is under these.

    A record belongs to a row when its id is that of the row's spec with the record's seed, so one that was trained
    with overrides is in no table: it is a leftover, compared with the row that it is closest to. Problems of single
    files and folders are collected, and no reason to stop. Raises RequestError for a recipe that does not load.
    """
    records = {record.run_id: record for record in store}
    variants = read_variants(records, store)
    # Paths differ between machines, and the page must not: folders are named from the results folder on.
    problems = {run_id: text.replace(f"{store.path}/", "") for run_id, text in store.problems.items()}
    records = {record.run_id: record for variant in variants.values() for record in variant.records.values()}
    known, plans, unreadable = _plans(recipes)
    places: dict[str, list[RowRef]] = {}
    keys: dict[RowRef, str] = {}
    readers: dict[str, str] = {}
    for chosen in plans:
        for row, spec in chosen.everything():
            place = RowRef(chosen.recipe.name, chosen.experiment.name, row)
            keys[place] = key_of(spec.to_dict())
            places.setdefault(keys[place], []).append(place)
            if spec.data.reader is not None:  # another recipe of the same spec may leave it open
                readers[keys[place]] = spec.data.reader
    mark_stale(variants.values(), folder, readers)
    cached = CachedStore(store, records, problems)
    sections = []
    for chosen in plans:
        refs = {row: keys[RowRef(chosen.recipe.name, chosen.experiment.name, row)] for row, _ in chosen.everything()}
        here = {row: key for row, key in refs.items() if key in variants}
        if here and chosen.recipe.name in known:
            sections.append(_section(chosen, here, variants, cached, folder))
    leftovers = unplanned_section({key: v for key, v in variants.items() if key not in places}, plans, keys)
    shown: dict[str, list[SpecRuns]] = {}
    for recipe in [*known, NO_RECIPE]:
        of_tables = [key for s in sections if s.plan.recipe.name == recipe for key in s.variants.values()]
        of_leftovers = [leftover.variant for leftover in leftovers.get(recipe, [])]
        if chosen_keys := dict.fromkeys([*of_tables, *of_leftovers]):
            shown[recipe] = [variants[key] for key in chosen_keys]
    return Report(
        recipes={name: known[name].title if name in known else "" for name in shown},
        sections=sections,
        leftovers={recipe: found for recipe, found in leftovers.items() if recipe in shown},
        variants=shown,
        places={key: found for key, found in places.items() if key in variants},
        problems=list(problems.values()),
        unreadable=unreadable,
        store=cached,
    )


def _section(
    chosen: Plan, here: dict[str, str], variants: dict[str, SpecRuns], store: Store, folder: DataFolder
) -> Section:
    """The table of a plan. `here` has the rows with records, and the key of their runs."""
    missing = len(chosen.everything()) - len(here)
    only_baseline = set(here) == {chosen.experiment.baseline} and len(chosen.specs) > 1
    if only_baseline:  # the rest would be a table of nothing
        only = {row: chosen.experiment.rows[row] for row in here}
        specs = {row: chosen.specs[row] for row in here}
        chosen = replace(chosen, experiment=replace(chosen.experiment, rows=only), specs=specs, combinations=())
    seeds = sorted({seed for key in here.values() for seed in variants[key].records})
    decided = not only_baseline and seed_counts_of(chosen, store).exists()  # then a table knows how many
    table = build_table(chosen, store, folder, None if decided else seeds)
    # Counts that this machine happens to remember are not in the records.
    rows = tuple(
        row if row.name in here else replace(row, params=None, frozen_params=None, macs=None) for row in table.rows
    )
    return Section(chosen, replace(table, rows=rows), here, missing, only_baseline)


def _plans(recipes: Sequence[str]) -> tuple[dict[str, Recipe], list[Plan], list[str]]:
    """The recipes to be shown; every experiment under every recipe, and a sentence for each that does not load."""
    unreadable: dict[str, None] = {}
    asked = {load_recipe(name).name: name for name in recipes}
    known: dict[str, Recipe] = {}
    plans = []
    for name in find_all("recipe") | asked:
        try:
            known[name] = load_recipe(asked.get(name, name))
        except RequestError as error:
            unreadable[str(error)] = None
    for experiment in find_all("experiment"):
        try:
            load_experiment(experiment)
        except RequestError as error:
            unreadable[str(error)] = None
            continue
        for name in known:
            try:
                plans.append(plan(experiment, asked.get(name, name)))
            except RequestError as error:
                unreadable[str(error)] = None
    return {name: known[name] for name in asked or known}, plans, list(unreadable)


def unplanned_section(
    variants: Mapping[str, SpecRuns], plans: Sequence[Plan], keys: Mapping[RowRef, str]
) -> dict[str, list[UnplannedRuns]]:
    """Each variant that no table shows, by the recipe of the planned rows from which it differs in the fewest fields.

    Sorted by what differs, so that the rows of one sweep with overrides stand together.
    """
    planned: dict[str, tuple[list[RowRef], dict[str, str], frozenset[tuple[str, str]]]] = {}
    for chosen in plans if variants else ():
        for row, spec in chosen.specs.items():
            place = RowRef(chosen.recipe.name, chosen.experiment.name, row)
            if keys[place] in planned:
                planned[keys[place]][0].append(place)
                continue
            tree = spec.to_dict()
            del tree["seed"]
            settings = SpecRuns(keys[place], tree).settings()
            planned[keys[place]] = ([place], settings, frozenset(settings.items()))
    found: dict[str, list[UnplannedRuns]] = {}
    for key, variant in variants.items():
        settings = variant.settings()
        items = frozenset(settings.items())
        data = settings.get("data.name")
        near = [entry for entry in planned.values() if entry[1].get("data.name") == data] or list(planned.values())
        places, theirs, _ = min(near, key=lambda entry: len(items ^ entry[2])) if near else ([], {}, None)
        paths = sorted(path for path in settings.keys() | theirs.keys() if settings.get(path) != theirs.get(path))
        differences = tuple((path, settings.get(path), theirs.get(path)) for path in paths)
        found.setdefault(places[0].recipe if places else NO_RECIPE, []).append(
            UnplannedRuns(key, tuple(places), differences)
        )
    for entries in found.values():
        entries.sort(key=lambda e: ([(path, here or "") for path, here, _ in e.differences], e.variant))
    return found
