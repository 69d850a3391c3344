"""The runs behind the numbers of a table, one line each: what was measured, against what, and where it lies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

from metaformer_ablate.analysis.tables.columns import Column, format_optional
from metaformer_ablate.analysis.tables.csv import csv_text
from metaformer_ablate.analysis.tables.text import draw, not_shown, text_width, width_of
from metaformer_ablate.analysis.tables.types import Table, plain
from metaformer_ablate.tasks.base import Metric


@dataclass(frozen=True)
class RunLine:
    """A run. `difference` is its value minus the baseline's of the same seed; `folder` is None without a record."""

    row: str
    seed: int
    run_id: str
    status: str
    value: float | None
    difference: float | None
    device: str | None
    commit: str | None
    dirty: bool | None
    folder: str | None

    def to_json(self, metric: str) -> dict[str, Any]:
        """The run with its value under the name of the metric."""
        return {metric if each.name == "value" else each.name: getattr(self, each.name) for each in fields(self)}


def list_runs(table: Table) -> list[RunLine]:
    """Every run, row by row in the order of the table, then those of its combinations of two rows.

    The mean of a row's differences is its difference in the table, where the table has one.
    """
    there = table.baseline_row.values()
    lines = []
    for row in (*table.rows, *(table.interactions or ())):
        for run in row.runs:
            data = run.record.data if run.record is not None else {}
            git = data.get("git") or {}
            value, base = run.value(table.metric.name), there.get(run.seed)
            paired = row.name != table.baseline and value is not None and base is not None
            lines.append(
                RunLine(
                    row=row.name,
                    seed=run.seed,
                    run_id=run.run_id,
                    status=run.status,
                    value=value,
                    difference=value - base if paired else None,  # type: ignore[operator]
                    device=data.get("device"),
                    commit=git.get("commit"),
                    dirty=git.get("dirty"),
                    folder=str(run.record.folder) if run.record is not None else None,
                )
            )
    return lines


def render_runs(table: Table, lines: Sequence[RunLine], style: str) -> str:
    """The list as text, csv or json."""
    metric = table.metric
    if style == "json":
        tree = {
            "experiment": table.experiment,
            "recipe": table.recipe,
            "metric": metric.name,
            "runs": [line.to_json(metric.name) for line in lines],
            "warnings": plain(table.warnings),
        }
        return json.dumps(tree, indent=1, allow_nan=False) + "\n"
    if style == "csv":
        columns = [metric.name if each.name == "value" else each.name for each in fields(RunLine)]
        return csv_text(columns, [line.to_json(metric.name) for line in lines])
    width, shown, gone = text_width(), _columns(metric), []
    for name in _LEAST_TELLING:
        if width_of(list(shown.values()), _cells(lines, shown)) <= width:
            break
        gone.append(shown.pop(name).heading)
    cells = _cells(lines, shown)
    drawn = [(cells[i], i + 1 < len(lines) and lines[i + 1].row != line.row) for i, line in enumerate(lines)]
    values = {row.name: list(row.values().values()) for row in (*table.rows, *(table.interactions or ()))}
    notes = [f"{name}: mean {fmean(found):.4f} over {len(found)} seeds" for name, found in values.items() if found]
    notes += [not_shown(gone, width)] if gone else []
    headings = [column.heading for column in shown.values()]
    return draw(f"The runs of {table.title}", headings, list(shown.values()), drawn, notes, width)


def _cells(lines: Sequence[RunLine], columns: dict[str, Column]) -> list[list[str]]:
    return [[column.of(line, 4) for column in columns.values()] for line in lines]


# In a narrow terminal these go, the first ones first.
_LEAST_TELLING = ("folder", "commit", "device")


def _columns(metric: Metric) -> dict[str, Column]:
    return {
        "row": Column("Row", lambda line, digits: line.row, left=True, whole=True),
        "seed": Column("Seed", lambda line, digits: str(line.seed)),
        "run": Column("Run", lambda line, digits: line.run_id, left=True, whole=True),
        "status": Column("Status", lambda line, digits: line.status, left=True),
        "value": Column(metric.heading, lambda line, digits: format_optional(line.value, f".{digits}f"), whole=True),
        "difference": Column("Difference", lambda line, digits: format_optional(line.difference, f"+.{digits}f")),
        "device": Column("Device", lambda line, digits: line.device or "", left=True),
        "commit": Column("Commit", lambda line, digits: _commit(line), left=True),
        "folder": Column("Folder", lambda line, digits: line.folder or "", left=True, whole=True),
    }


def _commit(line: RunLine) -> str:
    return (line.commit or "")[:10] + (" (dirty)" if line.dirty else "")
