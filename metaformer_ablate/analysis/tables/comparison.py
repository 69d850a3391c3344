"""One experiment under two recipes, or under one and in the paper: means side by side, ranks and their change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaformer_ablate.analysis.tables.columns import Column, columns_of
from metaformer_ablate.analysis.tables.csv import csv_text
from metaformer_ablate.analysis.tables.ranking import measured_column, paper_column
from metaformer_ablate.analysis.tables.render import render_sheet
from metaformer_ablate.analysis.tables.sheet import Sheet
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Table, TableRow, metric_json, plain
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.statistics.agreement import agreement
from metaformer_ablate.statistics.stats import mid_ranks
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
    """A row and its two results, in the order of the recipes. `rank_change` is the second rank minus the first."""

    name: str
    label: str
    group: str
    paper: Mapping[str, Any]
    results: tuple[Result, Result]

    @property
    def set(self) -> Mapping[str, Any]:
        return {}  # it may differ between the recipes

    @property
    def rank_change(self) -> float | None:
        before, after = (result.rank for result in self.results)
        return None if before is None or after is None else after - before

    def to_json(self) -> dict[str, Any]:
        tree = {key: plain(getattr(self, key)) for key in ("name", "label", "group", "paper", "results")}
        return {**tree, "rank_change": self.rank_change}


@dataclass(frozen=True)
class Comparison:
    """An experiment under two recipes, for one metric of their task."""

    experiment: str
    recipes: tuple[str, str]
    task: Task
    metric: Metric
    rows: tuple[ComparisonRow, ...]
    agreement: Mapping[str, Any] | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "recipes": list(self.recipes),
            **metric_json(self.task, self.metric),
            **{key: plain(getattr(self, key)) for key in ("rows", "agreement", "warnings")},
        }


def build_comparison(
    experiment: str,
    recipes: tuple[str, str],
    overrides: Sequence[str],
    store: Store,
    folder: DataFolder,
    seeds: Sequence[int] | None = None,
    metric: str | None = None,
) -> Comparison:
    """What two recipes say of the rows of an experiment. PAPER stands for a recipe.

    Ranks are among the rows that both have a number for, 1 for the best value, ties sharing the mean of theirs.
    Overrides apply to both recipes. Rows where a seed diverged have no rank: the mean of the others is one of the
    fortunate. Raises RequestError for one recipe twice, or two recipes of different tasks.
    """
    if recipes[0] == recipes[1]:
        raise RequestError(f"compare: {recipes[0]!r} twice; give two recipes, or one and {PAPER!r}")
    tables = {
        recipe: build_table(plan(experiment, recipe, overrides), store, folder, seeds, metric=metric, spread=False)
        for recipe in recipes
        if recipe != PAPER
    }
    first = next(iter(tables.values()))
    _check_one_task(first, tables.values())
    sides = [tables[recipe].rows if recipe in tables else _as_printed(first) for recipe in recipes]
    columns = [
        measured_column(recipe, tables[recipe].rows) if recipe in tables else paper_column(first.rows)
        for recipe in recipes
    ]
    common = [row for row in columns[0].values if row in columns[1].values]
    ranks = [
        dict(zip(common, mid_ranks([-first.metric.sign * column.values[row] for row in common]), strict=True))
        for column in columns
    ]
    rows = []
    for one, two in zip(*sides, strict=True):
        results = Result(one, ranks[0].get(one.name)), Result(two, ranks[1].get(one.name))
        rows.append(ComparisonRow(one.name, one.label, one.group, one.paper, results))
    return Comparison(
        experiment=first.experiment,
        recipes=recipes,
        task=first.task,
        metric=first.metric,
        rows=tuple(rows),
        agreement=agreement(columns[0], columns[1], first.metric.sign),
        warnings=tuple(f"{recipe}: {warning}" for recipe, table in tables.items() for warning in table.warnings),
    )


def _check_one_task(first: Table, tables: Iterable[Table]) -> None:
    if other := next((table for table in tables if table.task is not first.task), None):
        raise RequestError(
            f"compare: {first.recipe} is of {first.task.name}, {other.recipe} of {other.task.name}; "
            f"give two recipes of one task"
        )


def _as_printed(table: Table) -> tuple[TableRow, ...]:
    """The rows with the paper's number for their mean."""
    return tuple(
        TableRow(
            row.metric, row.name, row.label, row.group, paper=row.paper,
            n=0 if row.printed is None else 1, mean=row.printed, status="missing" if row.printed is None else "ok",
        )
        for row in table.rows
    )  # fmt: skip


def render_comparison(comparison: Comparison, style: str, digits: int | None = None) -> str:
    """A comparison in one of the formats of a table."""
    if style == "json":
        return json.dumps(comparison.to_json(), indent=1, allow_nan=False) + "\n"
    if style == "csv":
        return render_csv(comparison)
    one, other = comparison.recipes
    metric = comparison.metric
    usual = columns_of(metric)
    columns = {"group": usual["group"], "row": usual["row"]}
    for i, recipe in enumerate((one, other)):
        columns |= {f"{recipe} {key}": column for key, column in _columns(metric, recipe, i).items()}
    columns["change"] = Column("Rank change", lambda row, digits: _rank(row.rank_change, "+"))
    narrow: list[tuple[str, Column | None]] = [("group", None)]
    for i, recipe in enumerate((one, other)):
        if recipe != PAPER:
            shorter = _columns(metric, recipe, i, interval=False)["mean"]
            narrow += [(f"{recipe} n", None), (f"{recipe} mean", shorter)]
    best = "the highest" if metric.higher_is_better else "the lowest"
    notes = [
        f"Ranks are of the mean {metric.phrase} among the rows that both have, 1 for {best}; ties share theirs.",
        *(comparison.agreement["text"] if comparison.agreement else []),
        *(f"Warning: {warning}" for warning in comparison.warnings),
    ]
    title = f"{comparison.experiment} under {one} and {other}"
    decimals = metric.digits if digits is None else digits
    marks: list[tuple[int, ...]] = [()] * len(comparison.rows)
    return render_sheet(Sheet(title, comparison.rows, columns, decimals, marks, (), notes, (), narrow), style)


def _columns(metric: Metric, recipe: str, i: int, interval: bool = True) -> dict[str, Column]:
    """The columns of a table that speak of one recipe, over that recipe's results in a row of a comparison."""

    def of(cell: Callable[[Any, int], str]) -> Callable[[Any, int], str]:
        return lambda row, digits: cell(row.results[i].row, metric.paper_digits if recipe == PAPER else digits)

    usual = columns_of(metric)
    mean = usual[metric.name if interval else "mean"]
    parts = tuple(replace(part, of=of(part.of)) for part in mean.parts)
    heading = f"{recipe}: {metric.phrase}" + (f" ({metric.unit})" if metric.unit else "")
    parts = (*(replace(part, heading=heading) for part in parts[:1]), *(() if recipe == PAPER else parts[1:]))
    columns = {"mean": replace(mean, heading=heading, of=of(mean.of), parts=parts)}
    if recipe != PAPER:
        columns["n"] = replace(usual["n"], of=of(usual["n"].of))
    return {**columns, "rank": Column("Rank", lambda row, digits: _rank(row.results[i].rank))}


def _rank(rank: float | None, sign: str = "") -> str:
    return "" if rank is None else f"{rank:{sign if rank else ''}g}"


def render_csv(comparison: Comparison) -> str:
    keys = ("n", "mean", "std", "status")
    lines = []
    for row in comparison.rows:
        line = {"experiment": comparison.experiment, "name": row.name, "label": row.label, "group": row.group}
        for recipe, result in zip(comparison.recipes, row.results, strict=True):
            line |= {f"{recipe}_{key}": getattr(result.row, key) for key in keys} | {f"{recipe}_rank": result.rank}
        lines.append({**line, "rank_change": row.rank_change})
    return csv_text(list(lines[0]), lines)
