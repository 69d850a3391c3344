"""One experiment under several recipes or lengths, or in the paper: means side by side, ranks and their changes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from metaformer_ablate.analysis.tables.ranking import measured_column, paper_column
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Table, TableRow, metric_json, plain
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError, shown, unknown
from metaformer_ablate.records.store import Store
from metaformer_ablate.records.tuning import tuned_plan
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.statistics.agreement import agreement, change_of_agreement
from metaformer_ablate.statistics.consensus import LeftOut, left_out_one_by_one, mean_ranks, ranks_of
from metaformer_ablate.tasks.base import Metric, Task

PAPER = "paper"  # stands for a recipe: the column of printed numbers


_FROM_TABLE = ("n", "mean", "std", "ci95", "delta", "status", "runs")


@dataclass(frozen=True)
class Result:
    """A row under one recipe, or as the paper prints it, and its rank there; None where it has none."""

    row: TableRow
    rank: float | None

    def to_json(self) -> dict[str, Any]:
        tree = self.row.to_json()
        return {**{key: tree[key] for key in _FROM_TABLE}, "rank": self.rank}


@dataclass(frozen=True)
class ComparisonRow:
    """A row and its results, in the order of the recipes. `mean_rank` is over them, None where one has no rank."""

    name: str
    label: str
    group: str
    paper: Mapping[str, Any]
    results: tuple[Result, ...]
    mean_rank: float | None
    short: str = ""

    @property
    def set(self) -> Mapping[str, Any]:
        return {}  # it may differ between the recipes

    @property
    def rank_change(self) -> float | None:
        """The second rank minus the first, of two recipes."""
        before, after, *others = (result.rank for result in self.results)
        return None if before is None or after is None or others else after - before

    def to_json(self) -> dict[str, Any]:
        names = ("name", "label", "group", "paper", "results", "rank_change", "mean_rank")
        return {key: plain(getattr(self, key)) for key in names}


@dataclass(frozen=True)
class Comparison:
    """An experiment under several recipes, for one metric of their task.

    `agreements` are of each pair of recipes, `left_out` says what each recipe alone decides (of three or more), and
    `changes` how much better one recipe agrees with the paper than the one named before it.
    """

    experiment: str
    recipes: tuple[str, ...]
    baseline: str
    task: Task
    metric: Metric
    rows: tuple[ComparisonRow, ...]
    agreements: tuple[Mapping[str, Any], ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    changes: tuple[Mapping[str, Any], ...] = ()
    not_chosen: tuple[str, ...] = ()  # rows of the experiment that are left out as asked

    @property
    def agreement(self) -> Mapping[str, Any] | None:
        """That of two recipes."""
        return self.agreements[0] if len(self.recipes) == 2 and self.agreements else None

    def to_json(self) -> dict[str, Any]:
        more = ("agreements", "changes", "left_out") if len(self.recipes) > 2 else ()
        more = (*more, "not_chosen") if self.not_chosen else more
        return {
            "experiment": self.experiment,
            "recipes": list(self.recipes),
            **metric_json(self.task, self.metric),
            **{key: plain(getattr(self, key)) for key in ("rows", "agreement", *more, "warnings")},
        }


def build_comparison(
    experiment: str,
    recipes: Sequence[str],
    overrides: Sequence[str],
    store: Store,
    folder: DataFolder,
    seeds: Sequence[int] | None = None,
    metric: str | None = None,
    tuned: bool = False,
    rows: Sequence[str] | None = None,
) -> Comparison:
    """What two or more recipes say of the rows of an experiment.

    A recipe may have overrides of its own, `NAME:key=value,key=value`; PAPER stands for the printed numbers. Ranks are
    among the rows that all have a number for, 1 for the best value, ties sharing the mean of theirs. `overrides` apply
    to every recipe. With `tuned` each row of a recipe has its own best value there. Rows where a seed diverged have no
    rank: the mean of the others is one of the fortunate. `rows` names the only ones to compare, as the confirmation of
    a study; they stay in the order of the experiment. Raises RequestError for fewer than two recipes, for the same runs
    twice, for recipes of different tasks, for `tuned` where nothing was chosen, and for a row that is not there.
    """
    plans = _plans(experiment, recipes, overrides)
    if tuned:
        plans = {recipe: tuned_plan(chosen, store)[0] for recipe, chosen in plans.items()}
    tables = {
        name: build_table(chosen, store, folder, seeds, metric=metric, spread=False) for name, chosen in plans.items()
    }
    _check_one_task(tables)
    tables, not_chosen = _with_rows(tables, rows)
    first = next(iter(tables.values()))
    printed = _one_paper(tables) if PAPER in recipes else first
    sides = [tables[recipe].rows if recipe in tables else _as_printed(printed) for recipe in recipes]
    columns = [
        measured_column(recipe, tables[recipe].rows, tables[recipe].first)
        if recipe in tables
        else paper_column(printed.rows, first.metric.name)
        for recipe in recipes
    ]
    sign = first.metric.sign
    ranks = ranks_of(columns, sign)
    means = mean_ranks(ranks)
    compared = []
    for results in zip(*sides, strict=True):
        one, name = results[0], results[0].name
        ranked = tuple(Result(row, column.get(name)) for row, column in zip(results, ranks, strict=True))
        compared.append(ComparisonRow(name, one.label, one.group, one.paper, ranked, means.get(name), one.short))
    pairs = [agreement(one, other, sign) for one, other in combinations(columns, 2)]
    agreements = tuple(found for found in pairs if found is not None)
    return Comparison(
        experiment=first.experiment,
        recipes=tuple(recipes),
        baseline=first.baseline,
        task=first.task,
        metric=first.metric,
        rows=tuple(compared),
        agreements=agreements,
        left_out=tuple(left_out_one_by_one(columns, first.baseline, sign)),
        warnings=tuple(f"{recipe}: {warning}" for recipe, table in tables.items() for warning in table.warnings),
        changes=tuple(_changes(recipes, agreements)),
        not_chosen=not_chosen,
    )


def with_paper(agreements: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The agreement of each recipe with the paper, by recipe."""
    return {
        next(side for side in each["between"] if side != PAPER): each for each in agreements if PAPER in each["between"]
    }


def _changes(recipes: Sequence[str], agreements: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    found = with_paper(agreements)
    for before, after in combinations([recipe for recipe in recipes if recipe in found], 2):
        if (change := change_of_agreement(found[before], found[after])) is not None:
            yield {"from": before, "to": after, **change}


def split_recipe(word: str) -> tuple[str, list[str]]:
    """`NAME:key=value,key=value` as the name and its overrides; a comma inside of a value is one of the value."""
    name, colon, rest = word.partition(":")
    return name, re.split(r",(?=[A-Za-z_][A-Za-z0-9_.]*=)", rest) if colon else []


def spaced(recipe: str) -> str:
    """A recipe with its overrides as a heading, which may be broken between them."""
    return recipe.replace(":", ": ").replace(",", ", ")


def _plans(experiment: str, recipes: Sequence[str], overrides: Sequence[str]) -> dict[str, Plan]:
    """The plan of each recipe, the paper apart."""
    if len(recipes) < 2:
        found = f"found {', '.join(map(shown, recipes)) or 'none'}"
        raise RequestError(f"compare: give two recipes or more, or one and {PAPER!r}, then an experiment; {found}")
    plans: dict[str, Plan] = {}
    runs: dict[tuple[str, ...], str] = {}
    for i, recipe in enumerate(recipes):
        name, own = split_recipe(recipe)
        if recipe in recipes[:i]:
            raise RequestError(f"compare: {recipe!r} twice; give two recipes, or one and {PAPER!r}")
        if name == PAPER:
            if own:
                raise RequestError(f"compare: {shown(recipe)}: the paper's printed numbers take no overrides")
            continue
        plans[recipe] = chosen = plan(experiment, name, [*own, *overrides])
        ids = tuple(spec.run_id for spec in chosen.specs.values())
        if (same := runs.setdefault(ids, recipe)) != recipe:
            raise RequestError(f"compare: {same!r} and {recipe!r} are the same runs; allowed: recipes that differ")
    return plans


def _with_rows(tables: Mapping[str, Table], rows: Sequence[str] | None) -> tuple[dict[str, Table], tuple[str, ...]]:
    """The tables with the rows asked for, by default all, and the names of the others."""
    names = [row.name for row in next(iter(tables.values())).rows]
    for row in rows or ():
        if row not in names:
            raise RequestError(f"--rows: {unknown('row', row, names)}")
    chosen = names if rows is None else rows
    others = tuple(name for name in names if name not in chosen)
    return {recipe: _without(table, others) for recipe, table in tables.items()}, others


def _without(table: Table, names: Iterable[str]) -> Table:
    """The table without some rows and what the audit found in them alone."""
    gone = set(names)
    findings = {finding.warning for finding in table.audit if gone.issuperset(finding.rows)}
    return replace(
        table,
        rows=tuple(row for row in table.rows if row.name not in gone),
        warnings=tuple(warning for warning in table.warnings if warning not in findings),
    )


def _check_one_task(tables: Mapping[str, Table]) -> None:
    first, *others = tables.items()
    if other := next((each for each in others if each[1].task is not first[1].task), None):
        raise RequestError(
            f"compare: {first[0]} is of {first[1].task.name}, {other[0]} of {other[1].task.name}; "
            f"give recipes of one task"
        )


def _one_paper(tables: Mapping[str, Table]) -> Table:
    """A table with the paper's numbers of all. Raises RequestError where the paper prints others under each recipe."""
    first, *others = tables
    found = {row.name: row.printed for row in tables[first].rows}
    for other in others:
        for row in tables[other].rows:
            if (here := found[row.name]) is None:
                found[row.name] = row.printed
            elif row.printed not in (None, here):
                raise RequestError(
                    f"compare: the paper prints {here:g} for {row.name} under {first} and {row.printed:g} under "
                    f"{other}; give {PAPER!r} with one of them"
                )
    table = tables[first]
    name = table.metric.name
    rows = (row if (p := found[row.name]) is None else replace(row, paper={**row.paper, name: p}) for row in table.rows)
    return replace(table, rows=tuple(rows))


def _as_printed(table: Table) -> tuple[TableRow, ...]:
    """The rows with the paper's number for their mean."""
    return tuple(
        TableRow(
            row.metric, row.name, row.label, row.group, paper=row.paper, short=row.short,
            n=0 if row.printed is None else 1, mean=row.printed, status="missing" if row.printed is None else "ok",
        )
        for row in table.rows
    )  # fmt: skip


def names_of(pairs: Iterable[tuple[str, str]], most: int) -> str:
    """`a over b, c over d and 3 more`."""
    said = [f"{better} over {worse}" for better, worse in pairs]
    more = f" and {len(said) - most} more" if len(said) > most else ""
    return ", ".join(said[:most]) + more
