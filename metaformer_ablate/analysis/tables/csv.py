"""Tables as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from metaformer_ablate.analysis.escapes import csv_cell

_CSV_ROW = ("name", "label", "group", "params", "frozen_params", "macs", "n", "mean", "std")


_CSV_REST = (
    "ci95_lo", "ci95_hi", "delta_mean", "delta_ci95_lo", "delta_ci95_hi", "delta_p", "delta_method", "paper_top1",
    "status", "notes", "run_ids", "bootstrap_lo", "bootstrap_hi", "delta_bootstrap_lo", "delta_bootstrap_hi",
    "images_p", "images_method", "audit",
)  # fmt: skip


def render_csv(table: dict[str, Any]) -> str:
    stream = io.StringIO()
    columns = ["experiment", "recipe", *_CSV_ROW, *_CSV_REST]
    writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in table["rows"]:
        delta, images, bootstrap = row["delta"] or {}, row["images"] or {}, row["bootstrap"] or {}
        line = {
            "experiment": table["experiment"],
            "recipe": table["recipe"],
            "delta_mean": delta.get("mean"),
            "delta_p": delta.get("p"),
            "delta_method": delta.get("method"),
            "paper_top1": row["paper"].get("top1"),
            "notes": "; ".join(row["notes"]),
            "run_ids": " ".join(run["run_id"] for run in row["runs"] if run["status"] == "ok"),
            "images_p": images.get("p"),
            "images_method": images.get("method"),
            "audit": "; ".join(f["text"] for f in table["audit"] if row["name"] in f["rows"]),
        }
        for name, pair in {
            "ci95": row["ci95"],
            "delta_ci95": delta.get("ci95"),
            "bootstrap": bootstrap.get("ci95"),
            "delta_bootstrap": bootstrap.get("delta_ci95"),
        }.items():
            line[f"{name}_lo"], line[f"{name}_hi"] = pair or (None, None)
        writer.writerow({key: csv_cell(value) for key, value in {**row, **line}.items()})
    return stream.getvalue()
