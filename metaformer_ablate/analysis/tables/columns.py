"""The columns of a table, and numbers as they are printed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from metaformer_ablate.analysis.tables.types import Delta, ImageTest, Table, TableRow
from metaformer_ablate.cost.counting import open_operators
from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.statistics.effects import Estimate
from metaformer_ablate.tasks.base import Metric

Row = Any  # a TableRow, or a row of a comparison


@dataclass(frozen=True)
class LatexColumn:
    """What stands in a column of its own in LaTeX: a heading, and a row's cell as text ("" where there is none)."""

    heading: str
    of: Callable[[Row, int], str]
    mean: bool = False  # the column whose best is bold if so asked


@dataclass(frozen=True)
class Column:
    """A column for people: a heading and a row's cell, with so many decimals of the metric."""

    heading: str
    of: Callable[[Row, int], str]
    left: bool = False
    whole: bool = False  # never broken: an interval is read in one line
    parts: tuple[LatexColumn, ...] = ()  # in LaTeX; without them the column is one

    def latex_parts(self) -> tuple[LatexColumn, ...]:
        return self.parts or (LatexColumn(self.heading, self.of),)


def format_millions(params: int | None, frozen: int | None = None) -> str:
    if params is None:
        return "-"
    digits = 2 if params >= 1e6 else 3
    return f"{params / 1e6:.{digits}f}" + (f" + {frozen / 1e6:.{digits}f} frozen" if frozen else "")


def format_billions(macs: int | None, uncounted: Iterable[str] | None) -> str:
    """`1.82`, or `≥ 1.82` where nobody counts one of the operators that were not counted."""
    if macs is None:
        return "-"
    return ("≥ " if open_operators(uncounted or ()) else "") + f"{macs / 1e9:.{2 if macs >= 1e8 else 4}f}"


def metric_range(metric: Metric) -> tuple[float, float]:
    """The values that a metric can have."""
    return (0.0, 100.0) if metric.unit == "%" else (-math.inf, math.inf)


def difference_range(metric: Metric) -> tuple[float, float]:
    """The differences that two values of a metric can have."""
    low, high = metric_range(metric)
    return low - high, high - low


def within_range(interval: Sequence[float] | None, within: tuple[float, float]) -> tuple[float, float] | None:
    """An interval as it is printed: without what cannot be. A note of the row says that it was cut."""
    return None if interval is None else (max(interval[0], within[0]), min(interval[1], within[1]))


def format_mean(row: TableRow, digits: int | None = None, interval: bool = True) -> str:
    """`97.42 ± 0.63 [95.85, 98.98]`, or without the interval, or the status of a row without a mean."""
    if row.mean is None:
        return row.status
    digits = row.metric.digits if digits is None else digits
    text = f"{row.mean:.{digits}f}"
    if row.std is not None:
        text += f" ± {row.std:.{digits}f}"
    if interval and row.ci95 is not None:
        text += f" {format_pair(within_range(row.ci95, metric_range(row.metric)), digits)}"
    return text if row.status == "ok" else f"{text} ({row.status})"


def format_pair(interval: Sequence[float] | None, digits: int, sign: str = "") -> str:
    return "" if interval is None else f"[{interval[0]:{sign}.{digits}f}, {interval[1]:{sign}.{digits}f}]"


def format_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def format_label(row: TableRow) -> str:
    """The label; of a row that was given none its name and what it sets, for only that differs."""
    if row.label != row.name or not row.set:
        return row.label
    sets = ", ".join(f"{path.rpartition('.')[2]} {_plain(value)}" for path, value in row.set.items())
    return f"{row.name}: {sets}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def format_count(row: TableRow) -> str:
    """Runs that count; of all there are where that is not the same."""
    total = len(row.runs)
    return str(row.n) if row.n == total or not total else f"{row.n}/{total}"


def format_optional(value: float | None, style: str) -> str:
    return "" if value is None else f"{value:{style}}"


def _p(delta: Delta | None) -> str:
    return "" if delta is None or delta.p is None else format_p(delta.p)


def _p_of_images(test: ImageTest | None) -> str:
    if test is None or test.p is None:
        return ""
    return f"<{test.p:.0e}" if test.p_is_bound else format_p(test.p)


def format_difference(row: TableRow, digits: int) -> str:
    """`-0.69 [-1.55, +0.17]`; "" without a difference."""
    mean = format_optional(row.delta.mean if row.delta else None, f"+.{digits}f")
    return f"{mean} {_interval_of_difference(row, digits)}".rstrip()


def _interval_of_difference(row: TableRow, digits: int) -> str:
    return format_pair(within_range(row.delta.ci95 if row.delta else None, difference_range(row.metric)), digits, "+")


def format_estimate(estimate: Estimate | None, style: str) -> str:
    return "" if estimate is None else f"{estimate.value:{style}}"


def _bootstrap(row: TableRow, digits: int) -> str:
    return format_pair(row.bootstrap.ci95 if row.bootstrap else None, digits)


LEFT, RIGHT = (Column("", lambda row, digits: "", left=left) for left in (True, False))  # of text that is no table's

_ROW = Column("Row", lambda row, digits: format_label(row), left=True)
_GROUP = Column("Group", lambda row, digits: row.group, left=True)
_COUNT = Column("n", lambda row, digits: format_count(row))
_DIFFERENCE = Column(
    "Difference",
    format_difference,
    whole=True,
    parts=(
        LatexColumn("Diff.", lambda row, digits: format_optional(row.delta and row.delta.mean, f"+.{digits}f")),
        LatexColumn("95% interval", _interval_of_difference),
    ),
)


def columns_of(metric: Metric) -> dict[str, Column]:
    """The columns of a table by name. That of the means has the metric's name."""
    bootstrap = f"Bootstrap ({metric.unit})" if metric.unit else "Bootstrap"
    means = partial(format_mean, interval=False)
    return {
        "group": _GROUP,
        "row": _ROW,
        "short": Column("Row", lambda row, digits: row.short or format_label(row), left=True),
        "name": Column("Name", lambda row, digits: row.name, left=True),
        "params": Column(
            "Params (M)",
            lambda row, digits: format_millions(row.params, row.frozen_params),
            parts=(LatexColumn("Params (M)", lambda row, digits: format_millions(row.params)),),
        ),
        "macs": Column("MACs (G)", lambda row, digits: format_billions(row.macs, row.uncounted)),
        metric.name: Column(
            metric.heading,
            format_mean,
            whole=True,
            parts=(
                LatexColumn(
                    metric.heading, lambda row, digits: format_optional(row.mean, f".{digits}f") or row.status, True
                ),
                LatexColumn("SD", lambda row, digits: format_optional(row.std, f".{digits}f")),
            ),
        ),
        "mean": Column(metric.heading, means, whole=True, parts=(LatexColumn(metric.heading, means, True),)),
        "bootstrap": Column(bootstrap, _bootstrap, whole=True),
        "n": _COUNT,
        "difference": _DIFFERENCE,
        "effect": Column("Effect", lambda row, digits: format_estimate(row.delta and row.delta.effect, "+.2f")),
        "better": Column("Better", lambda row, digits: format_estimate(row.delta and row.delta.better, ".2f")),
        "p": Column("p", lambda row, digits: _p(row.delta)),
        "equal": Column("p (equal)", lambda row, digits: format_p(row.equivalence.p) if row.equivalence else ""),
        "images": Column("p (images)", lambda row, digits: _p_of_images(row.images)),
        "paper": Column(f"Paper {metric.phrase}", lambda row, digits: format_printed(row)),
        "status": Column("Status", lambda row, digits: row.status, left=True),
    }


def format_printed(row: TableRow) -> str:
    """The paper's number with the decimals that papers print."""
    return format_optional(row.printed, f".{row.metric.paper_digits}f")


def _sort_keys(metric: Metric) -> dict[str, Callable[[TableRow], Any]]:
    return {
        "name": lambda row: row.name,
        "row": format_label,
        "group": lambda row: row.group,
        "params": lambda row: row.params,
        "macs": lambda row: row.macs,
        metric.name: lambda row: row.mean,
        "n": lambda row: row.n,
        "difference": lambda row: row.delta and row.delta.mean,
        "effect": lambda row: row.delta and row.delta.effect and row.delta.effect.value,
        "better": lambda row: row.delta and row.delta.better and row.delta.better.value,
        "p": lambda row: row.delta and row.delta.p,
        "paper": lambda row: row.printed,
    }


def choose_columns(metric: Metric, names: Sequence[str] | None) -> tuple[str, ...]:
    """The columns asked for, checked; without names the usual ones."""
    if names is None:
        return ("group", "row", "params", "macs", metric.name, "n", "difference", "effect", "better", "p", "paper")
    known = columns_of(metric)
    for name in names:
        if name not in known:
            raise RequestError(f"--columns: {unknown('column', name, known)}")
        if names.count(name) > 1:
            raise RequestError(f"--columns: {name} is named twice")
    return tuple(names)


def sort_rows(table: Table, by: str) -> Table:
    """The table with its rows ordered by a column, from the largest with `-` before its name; what is unknown last."""
    name = by.removeprefix("-")
    keys = _sort_keys(table.metric)
    if name not in keys:
        raise RequestError(f"--sort: {unknown('column', name, keys)}, or one with - before it: largest first")
    key = keys[name]
    known = [row for row in table.rows if key(row) is not None]
    rest = [row for row in table.rows if key(row) is None]
    return replace(table, rows=(*sorted(known, key=key, reverse=by.startswith("-")), *rest))
