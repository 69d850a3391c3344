"""The numbers behind a figure."""

from __future__ import annotations

from statistics import fmean, median
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record

# What a figure can show along an axis, and how the axis is called.
COSTS = {
    "macs": "Multiply-adds an image",
    "params": "Trained parameters",
    "images_per_second": "Training speed (images/s, evaluation included)",
}


CURVES = {
    "val_top1": "Top-1 (%)",
    "val_loss": "Evaluation loss",
    "train_loss": "Training loss",
}


Rows = list[tuple[dict[str, Any], dict[int, Record]]]


def _stated(row: dict[str, Any], records: dict[int, Record]) -> dict[str, Any]:
    """What every figure says of a row: its names and which seeds ended how."""
    ended: dict[str, list[int]] = {}
    for run in row["runs"]:
        ended.setdefault(run["status"], []).append(run["seed"])
    at_chance = [seed for seed in ended.get("ok", []) if seed in records and records[seed].data.get("at_chance")]
    return {
        **{key: row[key] for key in ("name", "label", "group", "n")},
        "seeds": ended,  # none at all where the row does not apply under the recipe
        "at_chance": at_chance,
    }


def rows_data(table: dict[str, Any], rows: Rows) -> dict[str, Any]:
    return {
        "rows": [
            {
                **_stated(row, records),
                "mean": row["mean"],
                "ci95": row["ci95"],
                "delta": row["delta"] and {key: row["delta"][key] for key in ("mean", "ci95")},
            }
            for row, records in rows
        ]
    }


def seeds_data(table: dict[str, Any], rows: Rows) -> dict[str, Any]:
    def tops(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"seed": run["seed"], "top1": run["top1"]} for run in row["runs"] if run["top1"] is not None]

    return {"rows": [{**_stated(row, records), "mean": row["mean"], "runs": tops(row)} for row, records in rows]}


def curves_data(table: dict[str, Any], rows: Rows, y: str) -> dict[str, Any]:
    """The history of every run, and at each epoch mean, lowest and highest over the runs that ended ok."""
    lines = []
    for row, records in rows:
        runs = []
        for run in row["runs"]:
            if run["status"] in ("ok", "diverged") and run["seed"] in records:
                try:
                    history = records[run["seed"]].history()
                except RequestError:
                    continue  # a record's history that is none has no curve
                values = {"epochs": [line["epoch"] for line in history], "values": [line[y] for line in history]}
                runs.append({"seed": run["seed"], "status": run["status"], **values})
        by_epoch: dict[float, list[float]] = {}
        for run in runs:
            if run["status"] == "ok":
                for epoch, value in zip(run["epochs"], run["values"], strict=True):
                    by_epoch.setdefault(epoch, []).append(value)
        band = [
            {"epoch": epoch, "mean": fmean(values), "low": min(values), "high": max(values)}
            for epoch, values in sorted(by_epoch.items())
        ]
        lines.append({**_stated(row, records), "band": band, "runs": runs})
    return {"y": y, "rows": lines}


def cost_data(table: dict[str, Any], rows: Rows, x: str) -> dict[str, Any]:
    """`x_low` and `x_high`: over the seeds, where the quantity is measured and not counted."""
    lines, devices = [], set()
    for row, records in rows:
        ok = [records[run["seed"]].data for run in row["runs"] if run["status"] == "ok" and run["seed"] in records]
        if x == "images_per_second":
            speeds = [data["images_seen"] / data["seconds"] for data in ok if data.get("images_seen")]
            devices |= {str(data.get("device")) for data in ok}
            low, middle, high = (min(speeds), median(speeds), max(speeds)) if speeds else (None, None, None)
        else:
            low = middle = high = row[x]
        values = {"x": middle, "x_low": low, "x_high": high, "mean": row["mean"], "ci95": row["ci95"]}
        lines.append({**_stated(row, records), **values})
    return {"x": x, "devices": sorted(devices), "rows": lines}


def paper_data(table: dict[str, Any], rows: Rows) -> dict[str, Any]:
    """Differences to the baseline, in points: the paper's as printed, ours paired by seed."""
    base = next(row["paper"].get("top1") for row, _ in rows if row["name"] == table["baseline"])
    lines = []
    for row, records in rows:
        printed = row["paper"].get("top1")
        known = base is not None and printed is not None
        delta = row["delta"]
        lines.append(
            {
                **_stated(row, records),
                "paper_top1": printed,
                "paper_delta": round(printed - base, 4) if known else None,
                "mean": row["mean"],
                "delta": delta and {key: delta[key] for key in ("mean", "ci95")},
            }
        )
    return {"agreement": table.get("agreement"), "rows": lines}
