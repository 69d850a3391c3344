"""The runs behind the numbers of a table, one line each: what was measured, against what, and where it lies."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from metaformer_ablate.analysis.escapes import csv_cell
from metaformer_ablate.analysis.tables.columns import COLUMNS
from metaformer_ablate.analysis.tables.text import draw
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan

_KEYS = ("row", "seed", "run_id", "status", "top1", "difference", "device", "commit", "dirty", "folder")


def list_runs(table: dict[str, Any], plan: Plan, store: Store) -> list[dict[str, Any]]:
    """One mapping a run, row by row in the order of the table.

    `difference` is top-1 minus the baseline's of the same seed, in points: the mean of a row's is its difference in the
    table, where the table has one. `folder` is null where there is no record.
    """
    baseline = next(row for row in table["rows"] if row["name"] == plan.experiment.baseline)
    there = {run["seed"]: run["top1"] for run in baseline["runs"]}
    lines = []
    for row in table["rows"]:
        for run in row["runs"]:
            record = None if run["status"] == "missing" else store.read(run["run_id"])
            git = (record.data.get("git") or {}) if record else {}
            paired = row is not baseline and run["top1"] is not None and there.get(run["seed"]) is not None
            lines.append(
                {
                    "row": row["name"],
                    "seed": run["seed"],
                    "run_id": run["run_id"],
                    "status": run["status"],
                    "top1": run["top1"],
                    "difference": run["top1"] - there[run["seed"]] if paired else None,
                    "device": record.data.get("device") if record else None,
                    "commit": git.get("commit"),
                    "dirty": git.get("dirty"),
                    "folder": str(record.folder) if record else None,
                }
            )
    return lines


def render_runs(table: dict[str, Any], lines: list[dict[str, Any]], style: str) -> str:
    """The list as text, csv or json."""
    if style == "json":
        tree = {key: table[key] for key in ("experiment", "recipe", "metric")}
        return json.dumps({**tree, "runs": lines, "warnings": table["warnings"]}, indent=1, allow_nan=False) + "\n"
    if style == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, _KEYS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: csv_cell(value) for key, value in line.items()} for line in lines)
        return stream.getvalue()
    headings = ("Row", "Seed", "Run", "Status", "Top-1 (%)", "Difference", "Device", "Commit", "Folder")
    drawn = []
    for i, line in enumerate(lines):
        top1, difference, commit = line["top1"], line["difference"], line["commit"]
        cells = [line["row"], str(line["seed"]), line["run_id"], line["status"]]
        cells += ["" if top1 is None else f"{top1:.4f}", "" if difference is None else f"{difference:+.4f}"]
        cells += [
            line["device"] or "",
            (commit or "")[:10] + (" (dirty)" if line["dirty"] else ""),
            line["folder"] or "",
        ]
        drawn.append((cells, i + 1 < len(lines) and lines[i + 1]["row"] != line["row"]))
    numbers = ("Seed", "Top-1 (%)", "Difference")
    columns = [COLUMNS["n" if heading in numbers else "row"] for heading in headings]
    title = f"The runs of {table['experiment']} under {table['recipe']}"
    notes = [f"{row['name']}: mean {row['mean']:.4f} of {row['n']}" for row in table["rows"] if row["mean"] is not None]
    return draw(title, headings, columns, drawn, notes)
