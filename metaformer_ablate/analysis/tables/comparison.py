"""One experiment under two recipes, or under one and in the paper: means side by side, ranks and their change."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from metaformer_ablate.analysis.escapes import csv_cell
from metaformer_ablate.analysis.tables.columns import COLUMNS, DIGITS, Column
from metaformer_ablate.analysis.tables.render import render_sheet
from metaformer_ablate.analysis.tables.sheet import Sheet
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.experiment import load_experiment
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.statistics import agreement as ranking
from metaformer_ablate.statistics.stats import mid_ranks

PAPER = "paper"  # stands for a recipe: the column of printed numbers


_FROM_TABLE = ("n", "mean", "std", "ci95", "delta", "status", "runs")


def build_comparison(
    experiment: str,
    recipes: tuple[str, str],
    overrides: Sequence[str],
    store: Store,
    folder: DataFolder,
    seeds: Sequence[int] | None = None,
) -> dict[str, Any]:
    """{"experiment", "recipes", "metric", "rows", "agreement", "warnings"}; a row has what both recipes say under
    `results`, in their order, each with the keys of a table's row and its `rank`.

    Ranks are among the rows that both have a number for, 1 for the highest top-1, ties sharing the mean of theirs.
    `rank_change` is the second rank minus the first. Overrides apply to both recipes. Rows where a seed diverged have
    no rank: the mean of the others is one of the fortunate.
    """
    if recipes[0] == recipes[1]:
        raise RequestError(f"compare: {recipes[0]!r} twice; give two recipes, or one and {PAPER!r}")
    known = load_experiment(experiment)
    keys = ("name", "label", "group", "paper")
    rows: list[dict[str, Any]] = [{key: getattr(row, key) for key in keys} for row in known.rows.values()]
    tables: dict[str, dict[str, Any]] = {}
    columns: list[ranking.RankedColumn] = []
    for recipe in recipes:
        if recipe == PAPER:
            columns.append(ranking.paper_column(rows))
        else:
            tables[recipe] = build_table(plan(experiment, recipe, overrides), store, folder, seeds)
            columns.append(ranking.measured_column(recipe, tables[recipe]["rows"]))
    common = [row for row in columns[0].values if row in columns[1].values]
    ranks = [dict(zip(common, mid_ranks([-column.values[row] for row in common]), strict=True)) for column in columns]
    lines = []
    for i, row in enumerate(rows):
        results: list[dict[str, Any]] = []
        for recipe, rank in zip(recipes, ranks, strict=True):
            here = tables[recipe]["rows"][i] if recipe in tables else _as_printed(row)
            results.append({**{key: here[key] for key in _FROM_TABLE}, "rank": rank.get(row["name"])})
        before, after = (result["rank"] for result in results)
        change = None if before is None or after is None else after - before
        lines.append({**row, "results": results, "rank_change": change})
    return {
        "experiment": known.name,
        "recipes": list(recipes),
        "metric": "top1",
        "rows": lines,
        "agreement": ranking.agreement(*columns),
        "warnings": [f"{recipe}: {warning}" for recipe, table in tables.items() for warning in table["warnings"]],
    }


def _as_printed(row: Mapping[str, Any]) -> dict[str, Any]:
    top1 = row["paper"].get("top1")
    status = "missing" if top1 is None else "ok"
    return {**dict.fromkeys(_FROM_TABLE), "n": 0 if top1 is None else 1, "mean": top1, "status": status, "runs": []}


def render_comparison(comparison: dict[str, Any], style: str, digits: int = DIGITS) -> str:
    """A comparison in one of the formats of a table."""
    if style == "json":
        return json.dumps(comparison, indent=1, allow_nan=False) + "\n"
    if style == "csv":
        return render_csv(comparison)
    one, other = comparison["recipes"]
    columns = {"group": COLUMNS["group"], "row": COLUMNS["row"]}
    for i, recipe in enumerate((one, other)):
        columns |= {f"{recipe} {key}": column for key, column in _columns(recipe, i).items()}
    columns["change"] = Column("Rank change", lambda row, digits: _rank(row["rank_change"], "+"))
    notes = ["Ranks are of the mean top-1 among the rows that both have, 1 for the highest; ties share theirs."]
    notes += comparison["agreement"]["text"] if comparison["agreement"] else []
    notes += [f"Warning: {warning}" for warning in comparison["warnings"]]
    rows = comparison["rows"]
    title = f"{comparison['experiment']} under {one} and {other}"
    return render_sheet(Sheet(title, rows, columns, digits, [()] * len(rows), (), notes), style)


def _columns(recipe: str, i: int) -> dict[str, Column]:
    """The columns of a table that speak of one recipe, over that recipe's results in a row of a comparison."""

    def of(cell: Callable[[Any, int], str]) -> Callable[[Any, int], str]:
        return lambda row, digits: cell(row["results"][i], 1 if recipe == PAPER else digits)

    top1 = COLUMNS["top1"]
    parts = tuple(replace(part, of=of(part.of)) for part in top1.parts)
    heading = f"{recipe}: top-1 (%)"
    parts = (replace(parts[0], heading=heading), *(() if recipe == PAPER else parts[1:]))
    columns = {"top1": replace(top1, heading=heading, of=of(top1.of), parts=parts)}
    if recipe != PAPER:
        columns["n"] = replace(COLUMNS["n"], of=of(COLUMNS["n"].of))
    return {**columns, "rank": Column("Rank", of(lambda result, digits: _rank(result["rank"])))}


def _rank(rank: float | None, sign: str = "") -> str:
    return "" if rank is None else f"{rank:{sign if rank else ''}g}"


def render_csv(comparison: dict[str, Any]) -> str:
    keys = ("n", "mean", "std", "status", "rank")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["experiment", "name", "label", "group"]
        + [f"{recipe}_{key}" for recipe in comparison["recipes"] for key in keys]
        + ["rank_change"]
    )
    for row in comparison["rows"]:
        line = [comparison["experiment"], row["name"], row["label"], row["group"]]
        line += [result[key] for result in row["results"] for key in keys]
        writer.writerow(map(csv_cell, [*line, row["rank_change"]]))
    return stream.getvalue()
