"""The table of an experiment as a W&B run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table_columns(table: Mapping[str, Any]) -> list[str | int]:
    """The columns of a table's lines."""
    metric = table["metric"]
    columns = ["row", "label", "group", "status", "params", "macs", "n", f"{metric} mean", f"{metric} std"]
    columns += ["ci95 low", "ci95 high", "difference", "difference low", "difference high", "p"]
    return [*columns, f"paper {metric}", "notes"]


def table_lines(table: Mapping[str, Any]) -> list[list[Any]]:
    """A line for each row, with `table_columns`."""
    lines = []
    for row in table["rows"]:
        delta = row["delta"] or {"mean": None, "ci95": None, "p": None}
        line = [row[key] for key in ("name", "label", "group", "status", "params", "macs", "n", "mean", "std")]
        line += [*(row["ci95"] or (None, None)), delta["mean"], *(delta["ci95"] or (None, None)), delta["p"]]
        lines.append([*line, row["paper"].get(table["metric"]), "; ".join(row["notes"])])
    return lines
