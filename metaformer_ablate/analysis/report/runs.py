"""Runs of the report: their settings, history and curves."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metaformer_ablate.analysis.report.cells import (
    Cell,
    Grid,
    Line,
    anchor,
    count,
    head,
    number,
    places_text,
    seed_summary,
    settings_text,
    words,
)
from metaformer_ablate.analysis.report.collect import Report, UnplannedRuns
from metaformer_ablate.analysis.report.spec_runs import SpecRuns
from metaformer_ablate.analysis.tables.columns import format_mean
from metaformer_ablate.records.record import LARGEST, Record
from metaformer_ablate.system.console import duration
from metaformer_ablate.system.files import read_regular
from metaformer_ablate.tasks.base import Metric

AXES = ("epoch", "train_loss", "val_loss")


# Points of curves in the whole page, 25 bytes each, and at most and at least in one curve.
CURVE_POINTS, MOST_POINTS, FEWEST_POINTS = 250_000, 200, 12


Curve = dict[str, list[float | None]]  # columns of history.csv by name: epoch, the losses, the reported metric


@dataclass(frozen=True)
class Runs:
    """The runs of a recipe or all: the specs by recipe, the points of their curves, and how many a curve has at most.

    `curves` is what the script draws: `runs`, the points of each run, and `metrics`, how the columns are called.
    """

    recipes: Sequence[tuple[str, str, Sequence[SpecBlock]]]  # name, title, specs
    curves: dict[str, Any]
    points: int


@dataclass(frozen=True)
class SpecBlock:
    """A spec with its runs: where it stands in tables, and its settings, in full or as they differ from another's."""

    id: str
    name: str
    summary: str
    tables: Sequence[tuple[str, str]]  # id and name
    settings: Sequence[str]
    differs: tuple[str, str] | None  # the id of the spec in full, and what differs
    runs: Grid


def all_runs(report: Report, machines: Machines) -> Runs:
    """Every run under the spec it has."""
    total = sum(len(variant.records) for found in report.variants.values() for variant in found)
    points = min(MOST_POINTS, max(FEWEST_POINTS, CURVE_POINTS // max(total, 1)))
    curves: dict[str, Curve] = {}
    metrics: dict[str, str] = {}
    leftovers = {entry.variant: entry for found in report.leftovers.values() for entry in found}
    recipes = []
    for recipe, found in report.variants.items():
        blocks = []
        for variant in found:
            reported = variant.task.reported
            metrics[f"val_{reported.name}"] = reported.heading
            for record in variant.records.values():
                curves[record.run_id] = curve(record, points, reported)
            blocks.append(_block(variant, found[0], recipe, report, leftovers.get(variant.key), machines, curves))
        recipes.append((recipe, report.recipes[recipe], blocks))
    return Runs(recipes, {"metrics": metrics, "runs": curves}, points)


def _block(
    variant: SpecRuns,
    reference: SpecRuns,
    recipe: str,
    report: Report,
    leftover: UnplannedRuns | None,
    machines: Machines,
    curves: dict[str, Curve],
) -> SpecBlock:
    places = [place for place in report.places.get(variant.key, []) if place.recipe == recipe]
    if leftover is not None:
        nearest = places_text(leftover.nearest[:1])
        name = f"like {nearest}, but {settings_text(leftover.differences)}" if nearest else "of no experiment"
    else:
        name = places_text(places)
    drawn = {(section.table.experiment, recipe) for section in report.tables}
    mine, theirs = variant.settings(), reference.settings()
    paths = [path for path in mine | theirs if mine.get(path) != theirs.get(path)]
    text = settings_text((path, mine.get(path), theirs.get(path)) for path in paths)
    task = variant.task
    headings = ["Run", "Seed", "Status", *(metric.heading for metric in task.metrics)]
    headings += [f"Epoch: {task.reported.phrase}", "Epochs", "Images seen", "Time", "Peak memory", "Environment"]
    lines = [_run(variant, seed, curves[record.run_id], machines) for seed, record in variant.records.items()]
    return SpecBlock(
        id=variant.key,
        name=name,
        summary=f"{count(len(variant.records), 'run')}: {format_mean(seed_summary(variant))}",
        tables=[(anchor(p.experiment, recipe), p.experiment) for p in places if (p.experiment, recipe) in drawn],
        settings=[f"{path}: {value}" for path, value in mine.items()] if variant is reference else [],
        differs=None if variant is reference else (reference.key, text),
        runs=Grid("Runs by seed", headings, lines, "sortable runs"),
    )


def _run(variant: SpecRuns, seed: int, curve: Curve, machines: Machines) -> Line:
    record, task = variant.records[seed], variant.task
    data = record.data
    metrics = data["metrics"] or {}
    status = variant.status(seed) + (": " + str(data.get("reason")) if data.get("reason") else "")
    if data.get("at_chance"):
        status += ", at chance"
    seconds, memory = _float(data["seconds"]), _float(data.get("peak_memory_bytes"))
    machine = machines.number(data)
    cells = [
        head(record.run_id, code=True),
        number(seed, seed),
        words(status, style="text bad" if variant.status(seed) != "ok" else "text"),
        *(_number(metrics.get(metric.name), metric.digits) for metric in task.metrics),
        Cell(_curve_text(curve, task.reported)),
        _number(data.get("epochs"), 0),
        _number(data.get("images_seen"), 0),
        number(seconds, "·" if seconds is None else duration(seconds)),
        number(memory, "·" if memory is None else f"{memory / 2**20:,.0f} MiB"),
        Cell(f"E{machine}", target=f"machine-{machine}"),
    ]
    return Line(cells, {"id": f"run-{record.run_id}"})


def _float(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def _number(value: Any, digits: int) -> Cell:
    known = _float(value)
    return number(known, "·" if known is None else f"{known:,.{digits}f}")


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

    def number(self, data: dict[str, Any]) -> int:
        """The number of the environment of a record, counted as one more run in it."""
        known = {key: data.get(key) for key in ("device", "versions", "git", "data_fingerprint")}
        number = self.numbers.setdefault(json.dumps(known, sort_keys=True), len(self.numbers) + 1)
        self.counts[number] = self.counts.get(number, 0) + 1
        return number

    def grid(self) -> Grid | None:
        lines = []
        for text, place in self.numbers.items():
            known = json.loads(text)
            versions, git = (known[key] if isinstance(known[key], dict) else {} for key in ("versions", "git"))
            commit = "unknown" if git.get("commit") is None else git["commit"]
            commit = f"{commit} with changes" if git.get("dirty") else commit
            commit = f"{commit} as given, not seen" if git.get("given") else commit
            cells = [
                head(f"E{place}"),
                number(self.counts[place], f"{self.counts[place]:,}"),
                words(known["device"] or "unknown"),
                words(commit, style="text wide", code=True),
                words(known["data_fingerprint"] or "unknown"),
                words(", ".join(f"{k} {v}" for k, v in versions.items()) or "unknown", style="text wide"),
            ]
            lines.append(Line(cells, {"id": f"machine-{place}"}))
        headings = ["Environment", "Runs", "Device", "Commit of metaformer_ablate", "Data fingerprint", "Versions"]
        return Grid("Environments", headings, lines, "") if lines else None
