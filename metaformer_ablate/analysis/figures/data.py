"""The numbers behind a figure: exactly what is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from metaformer_ablate.analysis.tables.types import Delta, Interval, Table, TableRow, plain
from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import Metric, Task

# What a figure can show along an axis, and how the axis is called.
COSTS = {
    "macs": "MACs per image",
    "params": "Trained parameters",
    "images_per_second": "Training speed (images per second)",
}


def costs(table: Table) -> dict[str, str]:
    return COSTS


def curves(table: Table) -> dict[str, str]:
    """The columns of a history that a curve can show, and how the axis is called; the table's metric is the first."""
    task = table.task
    names = [table.metric.name, *(metric.name for metric in task.metrics)]
    shown = [task.metric(name) for name in dict.fromkeys(names) if name in task.history]
    return {f"val_{m.name}": _axis(m) for m in shown} | {"train_loss": "Training loss"}


def _axis(metric: Metric) -> str:
    return "Evaluation loss" if metric.name == "loss" else metric.heading  # there is a training loss too


@dataclass(frozen=True, kw_only=True)
class FigureRow:
    """What every figure says of a row: its names, how many runs count and which seeds ended how."""

    name: str
    label: str
    short: str  # the label where room is scarce
    group: str
    n: int
    seeds: Mapping[str, list[int]]  # by status; none at all where the row does not apply under the recipe
    at_chance: list[int]


@dataclass(frozen=True, kw_only=True)
class MeanRow(FigureRow):
    """A row of the figure `rows`."""

    mean: float | None
    ci95: Interval | None
    delta: Delta | None


@dataclass(frozen=True, kw_only=True)
class SeedsRow(FigureRow):
    """A row of the figure `seeds`: the metric by seed."""

    mean: float | None
    runs: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class RunCurve:
    """The course of one run."""

    seed: int
    status: str
    epochs: list[float]
    values: list[float]


@dataclass(frozen=True, kw_only=True)
class BandPoint:
    """An epoch over the runs that ended ok."""

    epoch: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class CurvesRow(FigureRow):
    """A row of the figure `curves`."""

    band: list[BandPoint]
    runs: list[RunCurve]


@dataclass(frozen=True, kw_only=True)
class CostRow(FigureRow):
    """A row of the figure `cost`. `x_low` and `x_high` are over the seeds where the quantity is measured."""

    x: float | None
    x_low: float | None
    x_high: float | None
    mean: float | None
    ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class PaperRow(FigureRow):
    """A row of the figure `paper`: the paper's difference from the baseline as printed, ours paired by seed."""

    printed: float | None
    paper_delta: float | None
    mean: float | None
    delta: Delta | None


@dataclass(frozen=True, kw_only=True)
class FigureData:
    """The numbers of a figure. Accuracies are in percent, differences in points."""

    kind: str
    experiment: str
    recipe: str
    overrides: tuple[str, ...]
    baseline: str
    task: Task
    metric: Metric
    rows: Sequence[Any]

    @property
    def baseline_row(self) -> Any:
        return next(row for row in self.rows if row.name == self.baseline)

    def own(self) -> dict[str, Any]:
        """What this kind says beside its rows."""
        return {}

    def to_json(self) -> dict[str, Any]:
        tree = {name: plain(getattr(self, name)) for name in ("kind", "experiment", "recipe", "overrides", "baseline")}
        if self.metric is not self.task.reported:
            tree["metric"] = self.metric.name
        return {**tree, **self.own(), "rows": [self._row(row) for row in self.rows]}

    def _row(self, row: FigureRow) -> dict[str, Any]:
        tree = plain(row)
        if tree.get("delta"):
            tree["delta"] = {key: tree["delta"][key] for key in ("mean", "ci95")}
        if isinstance(row, SeedsRow):
            tree["runs"] = [{"seed": seed, self.metric.name: value} for seed, value in row.runs.items()]
        return {f"paper_{self.metric.name}" if key == "printed" else key: value for key, value in tree.items()}


@dataclass(frozen=True, kw_only=True)
class RowsData(FigureData):
    rows: Sequence[MeanRow]


@dataclass(frozen=True, kw_only=True)
class SeedsData(FigureData):
    rows: Sequence[SeedsRow]


@dataclass(frozen=True, kw_only=True)
class CurvesData(FigureData):
    y: str  # a column of history.csv
    axis: str  # what it is called
    rows: Sequence[CurvesRow]

    def own(self) -> dict[str, Any]:
        return {"y": self.y}


@dataclass(frozen=True, kw_only=True)
class CostData(FigureData):
    x: str  # one of COSTS
    devices: list[str]
    rows: Sequence[CostRow]

    def own(self) -> dict[str, Any]:
        return {"x": self.x, "devices": self.devices}


@dataclass(frozen=True, kw_only=True)
class PaperData(FigureData):
    agreement: Mapping[str, Any] | None
    rows: Sequence[PaperRow]

    def own(self) -> dict[str, Any]:
        return {"agreement": plain(self.agreement)}


def _header(kind: str, table: Table) -> dict[str, Any]:
    names = ("experiment", "recipe", "overrides", "baseline", "task", "metric")
    return {"kind": kind, **{name: getattr(table, name) for name in names}}


def _stated(row: TableRow) -> dict[str, Any]:
    ended: dict[str, list[int]] = {}
    for run in row.runs:
        ended.setdefault(run.status, []).append(run.seed)
    chance = [run.seed for run in row.runs if run.status == "ok" and run.record and run.record.data.get("at_chance")]
    return {
        **{key: getattr(row, key) for key in ("name", "label", "group", "n")},
        "short": row.short or row.label,
        "seeds": ended,
        "at_chance": chance,
    }


def rows_data(table: Table) -> RowsData:
    rows = [MeanRow(**_stated(row), mean=row.mean, ci95=row.ci95, delta=row.delta) for row in table.rows]
    return RowsData(**_header("rows", table), rows=rows)


def seeds_data(table: Table) -> SeedsData:
    rows = [SeedsRow(**_stated(row), mean=row.mean, runs=row.values()) for row in table.rows]
    return SeedsData(**_header("seeds", table), rows=rows)


def curves_data(table: Table, y: str) -> CurvesData:
    """The history of every run, and at each epoch mean, lowest and highest over the runs that ended ok."""
    rows = []
    for row in table.rows:
        runs = _run_curves(row, y)
        by_epoch: dict[float, list[float]] = {}
        for run in runs:
            if run.status == "ok":
                for epoch, value in zip(run.epochs, run.values, strict=True):
                    by_epoch.setdefault(epoch, []).append(value)
        band = [
            BandPoint(epoch=epoch, mean=fmean(values), low=min(values), high=max(values))
            for epoch, values in sorted(by_epoch.items())
        ]
        rows.append(CurvesRow(**_stated(row), band=band, runs=runs))
    return CurvesData(**_header("curves", table), y=y, axis=curves(table)[y], rows=rows)


def _run_curves(row: TableRow, y: str) -> list[RunCurve]:
    found = []
    for run in row.runs:
        if run.status in ("ok", "diverged") and run.record is not None:
            try:
                history = run.record.history()
            except RequestError:
                continue  # a record's history that is none has no curve
            if not all(y in line for line in history):
                continue  # a metric that this run lacks
            epochs, values = ([line[name] for line in history] for name in ("epoch", y))
            found.append(RunCurve(seed=run.seed, status=run.status, epochs=epochs, values=values))
    return found


def cost_data(table: Table, x: str) -> CostData:
    rows, devices = [], set()
    for row in table.rows:
        low = middle = high = None
        if x == "images_per_second":
            ok = [run.record.data for run in row.runs if run.status == "ok" and run.record is not None]
            speeds = [data["images_seen"] / data["seconds"] for data in ok if data.get("images_seen")]
            devices |= {str(data.get("device")) for data in ok}
            if speeds:
                low, middle, high = min(speeds), median(speeds), max(speeds)
        else:
            low = middle = high = getattr(row, x)
        rows.append(CostRow(**_stated(row), x=middle, x_low=low, x_high=high, mean=row.mean, ci95=row.ci95))
    return CostData(**_header("cost", table), x=x, devices=sorted(devices), rows=rows)


def paper_data(table: Table) -> PaperData:
    base = table.baseline_row.printed
    rows = []
    for row in table.rows:
        known = base is not None and row.printed is not None
        delta = round(row.printed - base, 4) if known else None  # type: ignore[operator]
        rows.append(PaperRow(**_stated(row), printed=row.printed, paper_delta=delta, mean=row.mean, delta=row.delta))
    return PaperData(**_header("paper", table), agreement=table.agreement, rows=rows)
