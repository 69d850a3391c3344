"""The table of an experiment as a W&B run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS: list[str | int] = [
    "row",
    "label",
    "group",
    "status",
    "params",
    "macs",
    "n",
    "top1 mean",
    "top1 std",
    "ci95 low",
    "ci95 high",
]

COLUMNS += ["difference", "difference low", "difference high", "p", "paper top1", "notes"]


def table_lines(table: Mapping[str, Any]) -> list[list[Any]]:
    """A line for each row, with `COLUMNS`."""
    lines = []
    for row in table["rows"]:
        delta = row["delta"] or {"mean": None, "ci95": None, "p": None}
        line = [row[key] for key in ("name", "label", "group", "status", "params", "macs", "n", "mean", "std")]
        line += [*(row["ci95"] or (None, None)), delta["mean"], *(delta["ci95"] or (None, None)), delta["p"]]
        lines.append([*line, row["paper"].get("top1"), "; ".join(row["notes"])])
    return lines
