"""Runs of the report: their settings, history and curves."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

from metaformer_ablate.analysis.report.collect import Report, SpecRuns, UnplannedRuns
from metaformer_ablate.analysis.report.markup import Html, anchor, cell, element, grid, link, text_cell
from metaformer_ablate.analysis.report.phrases import (
    CURVE_POINTS,
    FEWEST_POINTS,
    MOST_POINTS,
    count,
    joined,
    places_text,
    seed_summary,
    settings_text,
)
from metaformer_ablate.analysis.tables.columns import format_mean
from metaformer_ablate.records.record import LARGEST, Record
from metaformer_ablate.system.console import duration
from metaformer_ablate.system.files import read_regular
from metaformer_ablate.tasks.base import Metric, Task

AXES = ("epoch", "train_loss", "val_loss")


Curve = dict[str, list[float | None]]  # columns of history.csv by name: epoch, the losses, the reported metric


def runs_section(report: Report, machines: Machines) -> tuple[Html, dict[str, Any]]:
    """The section with every run under the spec it has, and what the script draws: `runs`, the points of each run, and
    `metrics`, how the columns of metrics are called."""
    total = sum(len(variant.records) for found in report.variants.values() for variant in found)
    points = min(MOST_POINTS, max(FEWEST_POINTS, CURVE_POINTS // max(total, 1)))
    curves: dict[str, Curve] = {}
    metrics: dict[str, str] = {}
    leftovers = {entry.variant: entry for found in report.leftovers.values() for entry in found}
    parts = []
    for recipe, found in report.variants.items():
        blocks = []
        for variant in found:
            reported = variant.task.reported
            metrics[f"val_{reported.name}"] = reported.heading
            for record in variant.records.values():
                curves[record.run_id] = curve(record, points, reported)
            blocks.append(_variant(variant, found[0], recipe, report, leftovers.get(variant.key), machines, curves))
        title = element("h3", element("code", recipe), " ", element("span", report.recipes[recipe], class_="quiet"))
        parts.append(element("article", title, *blocks, data_recipe=recipe))
    if not parts:
        return Html(""), {"metrics": metrics, "runs": curves}
    words = (
        "Every run under the spec that it was trained with, a line a seed. Its files are in ",
        element("code", "runs/RUN/"),
        f" of the results folder. Curves, drawn when a line is opened, have at most {points} points a run; ",
        element("code", "history.csv"),
        " has every epoch.",
    )
    return element("section", element("h2", "Runs"), element("p", *words), *parts, id="runs"), {
        "metrics": metrics,
        "runs": curves,
    }


def _variant(
    variant: SpecRuns,
    reference: SpecRuns,
    recipe: str,
    report: Report,
    leftover: UnplannedRuns | None,
    machines: Machines,
    curves: dict[str, Curve],
) -> Html:
    places = [place for place in report.places.get(variant.key, []) if place.recipe == recipe]
    if leftover is not None:
        nearest = places_text(leftover.nearest[:1])
        name: object = f"like {nearest}, but {settings_text(leftover.differences)}" if nearest else "of no experiment"
    else:
        name = places_text(places)
    row = seed_summary(variant)
    summary = element(
        "summary",
        element("span", name, class_="name"),
        element("span", f"{count(len(variant.records), 'run')}: {format_mean(row)}", class_="quiet"),
    )
    drawn = {(section.table.experiment, recipe) for section in report.sections if not section.only_baseline}
    tables = [
        link(anchor(place.experiment, recipe), place.experiment)
        for place in places
        if (place.experiment, recipe) in drawn
    ]
    parts: list[object] = []
    if tables:
        parts.append(element("p", "In the tables: ", *joined(tables, ", "), "."))
    if variant is reference:
        lines = (f"{path}: {value}" for path, value in variant.settings().items())
        parts += [element("p", "The spec in full:"), element("pre", "\n".join(lines), tabindex=0)]
    else:
        mine, theirs = variant.settings(), reference.settings()
        paths = [path for path in mine | theirs if mine.get(path) != theirs.get(path)]
        text = settings_text((path, mine.get(path), theirs.get(path)) for path in paths)
        parts.append(element("p", "The spec is ", link(reference.key, "the one in full"), f" but for: {text}."))
    task = variant.task
    headings = ["Run", "Seed", "Status", *(metric.heading for metric in task.metrics)]
    headings += [f"Epoch: {task.reported.phrase}", "Epochs", "Images seen", "Time", "Peak memory", "Environment"]
    rows = (_run(seed, record, task, curves[record.run_id], machines) for seed, record in variant.records.items())
    parts.append(grid("Runs by seed", headings, rows, "sortable runs"))
    parts.append(element("div", class_="curves"))
    return element("details", summary, *parts, id=variant.key, class_="variant")


def _run(seed: int, record: Record, task: Task, curve: Curve, machines: Machines) -> Html:
    data = record.data
    metrics = data["metrics"] or {}
    status = record.status + (": " + str(data.get("reason")) if data.get("reason") else "")
    if data.get("at_chance"):
        status += ", at chance"
    seconds, memory = _float(data["seconds"]), _float(data.get("peak_memory_bytes"))
    cells = [
        element("th", element("code", record.run_id), scope="row", class_="text"),
        cell(seed, seed),
        element("td", status, class_="text bad" if record.status != "ok" else "text"),
        *(_number(metrics.get(metric.name), metric.digits) for metric in task.metrics),
        element("td", _curve_text(curve, task.reported)),
        _number(data.get("epochs"), 0),
        _number(data.get("images_seen"), 0),
        cell(seconds, "·" if seconds is None else duration(seconds)),
        cell(memory, "·" if memory is None else f"{memory / 2**20:,.0f} MiB"),
        element("td", machines.link(data)),
    ]
    return element("tr", *cells, id=f"run-{record.run_id}")


def _float(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def _number(value: Any, digits: int) -> Html:
    number = _float(value)
    return cell(number, "·" if number is None else f"{number:,.{digits}f}")


def _history(record: Record) -> tuple[list[str], list[list[str]]]:
    """Names and lines of history.csv as they are written."""
    try:
        text = read_regular(record.folder / "history.csv", LARGEST["history.csv"]).decode()
        names, *lines = csv.reader(io.StringIO(text, newline=""))
    except (OSError, ValueError, csv.Error):
        return [], []
    return names, [line for line in lines if len(line) == len(names)]


def curve(record: Record, points: int, metric: Metric) -> Curve:
    """The columns of a curve at no more than `points` epochs, evenly spread with the first and last; None for a gap."""
    names, lines = _history(record)
    if len(lines) > points:
        lines = [lines[round(i * (len(lines) - 1) / (points - 1))] for i in range(points)]
    where = {name: names.index(name) if name in names else None for name in (*AXES, f"val_{metric.name}")}
    return {name: [None if i is None else _rounded(line[i]) for line in lines] for name, i in where.items()}


def _rounded(text: str) -> float | None:
    try:
        value = float(f"{float(text):.4g}")
    except ValueError:
        return None
    return None if not math.isfinite(value) else int(value) if value == int(value) else value


def _curve_text(curve: Curve, metric: Metric) -> str:
    """`1: 40.0, 6: 91.2, 12: 97.3`: what the curve says, for those who do not see it."""
    epochs, values = curve.get("epoch", []), curve.get(f"val_{metric.name}", [])
    shown = sorted({0, len(epochs) // 2, len(epochs) - 1}) if epochs and values else []
    pairs = ((epochs[i], values[i]) for i in shown)
    digits = metric.paper_digits
    told = (f"{e:g}:\N{NO-BREAK SPACE}{v:.{digits}f}" for e, v in pairs if e is not None and v is not None)
    return ", ".join(told) or "·"


class Machines:
    """The environments that runs were trained in, numbered in the order in which they are met."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.counts: dict[int, int] = {}

    def link(self, data: dict[str, Any]) -> Html:
        known = {key: data.get(key) for key in ("device", "versions", "git", "data_fingerprint")}
        number = self.numbers.setdefault(json.dumps(known, sort_keys=True), len(self.numbers) + 1)
        self.counts[number] = self.counts.get(number, 0) + 1
        return link(f"machine-{number}", f"E{number}")

    def section(self) -> Html:
        rows = []
        for text, number in self.numbers.items():
            known = json.loads(text)
            versions, git = (known[key] if isinstance(known[key], dict) else {} for key in ("versions", "git"))
            commit = "unknown" if git.get("commit") is None else git["commit"]
            commit = f"{commit} with changes" if git.get("dirty") else commit
            commit = f"{commit} as given, not seen" if git.get("given") else commit
            cells = [
                element("th", f"E{number}", scope="row", class_="text"),
                cell(self.counts[number], f"{self.counts[number]:,}"),
                text_cell(known["device"] or "unknown"),
                element("td", element("code", commit), class_="text wide"),
                text_cell(known["data_fingerprint"] or "unknown"),
                element("td", ", ".join(f"{k} {v}" for k, v in versions.items()) or "unknown", class_="text wide"),
            ]
            rows.append(element("tr", *cells, id=f"machine-{number}"))
        if not rows:
            return Html("")
        headings = ["", "Runs", "Device", "Commit of metaformer_ablate", "Data fingerprint", "Versions"]
        box = grid("Environments", headings, rows, "")
        return element("section", element("h2", "Environments"), box, id="machines")
