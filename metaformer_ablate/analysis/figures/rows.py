"""The figure `rows`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import FigureData, RowsData
from metaformer_ablate.analysis.figures.scale import Scale, draw_point
from metaformer_ablate.analysis.figures.style import (
    LINE_HEIGHT,
    Page,
    ending_remark,
    hollow_remark,
    row_styles,
    seeds_remark,
    with_unit,
    wrapped,
)
from metaformer_ablate.drawing.canvas import GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _columns(drawn: dict[str, tuple[float, Any]]) -> tuple[list[float], list[Any]]:
    return [value for value, _ in drawn.values()], [ci95 for _, ci95 in drawn.values()]


def row_axis(data: FigureData) -> tuple[dict[str, float], list[tuple[float, str, bool]], float]:
    """Where each row stands, from the top, in inches; the labels (place, text, whether a heading); the height."""
    places: dict[str, float] = {}
    labels: list[tuple[float, str, bool]] = []
    groups = groupby(data.rows, key=lambda row: row.group)
    headed = len({row.group for row in data.rows}) > 1
    y = 0.0
    for group, rows in groups:
        if headed:
            y += 0.06
            labels.append((y + 0.1, group, True))
            y += 0.2
        for row in rows:
            label = wrapped(row.label, 36)
            height = LINE_HEIGHT * (label.count("\n") + 1) + 0.075
            places[row.name] = y + height / 2
            labels.append((places[row.name], label, False))
            y += height
    return places, labels, y


def set_row_axis(axes: Any, labels: Sequence[tuple[float, str, bool]], height: float) -> None:
    axes.set_ylim(height + 0.04, -0.04)
    axes.set_yticks([y for y, _, _ in labels], [text for _, text, _ in labels])
    for tick, (_, _, heading) in zip(axes.get_yticklabels(), labels, strict=False):  # none on a panel to the right
        tick.set_linespacing(1.05)
        if heading:
            tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0, pad=7)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def draw_remarks(axes: Any, data: FigureData, places: dict[str, float]) -> None:
    """n of each row right of the axes, and what has to be said of its runs."""
    side = axes.get_yaxis_transform()
    axes.text(1.03, -0.06, "n", transform=side, va="bottom", color=GREY)
    for row in data.rows:
        ending = ending_remark(row)
        text = "  ".join([str(row.n), *([wrapped(ending, 18).replace("\n", "\n     ")] if ending else [])])
        axes.text(1.03, places[row.name], text, transform=side, va="center_baseline", size=7, linespacing=1.05)


def has_numbers(data: FigureData) -> bool:
    return any(row.n or getattr(row, "runs", None) for row in data.rows)


def draw_nothing(data: FigureData) -> Figure:
    """The rows and how their runs ended, where no run has a number."""
    places, labels, height = row_axis(data)
    page = Page(data, height + 0.2, ["No run has a result yet."])
    axes = page.figure.subplots()
    set_row_axis(axes, labels, height)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    draw_remarks(axes, data, places)
    return page.figure


def draw_rows(data: RowsData) -> Figure:
    rows, styles = data.rows, row_styles(data)
    places, labels, height = row_axis(data)
    baseline = data.baseline_row
    means = {row.name: (row.mean, row.ci95) for row in rows if row.mean is not None}
    deltas = {row.name: (row.delta.mean, row.delta.ci95) for row in rows if row.delta}
    scales = [Scale.of(data.metric, *_columns(means)), Scale.of(data.metric, *_columns(deltas), zero=True)]
    off = any(value not in scale for scale, of in zip(scales, (means, deltas), strict=True) for value, _ in of.values())
    caption = [
        f"Left: mean {data.metric.phrase} over seeds with the 95% t interval of the mean; in grey the baseline's.",
        "Right: mean difference to the baseline over common seeds with the 95% paired t interval.",
        seeds_remark(data),
        hollow_remark(ci95 for drawn in (means, deltas) for _, ci95 in drawn.values()),
        "No difference is shown where a seed diverged." if any("diverged" in row.seeds for row in rows) else "",
        "Triangle with a number: off the scale." if off else "",
    ]
    page = Page(data, height + 0.6, caption)
    left, right = page.figure.subplots(1, 2, sharey=True)
    if baseline.mean is not None:
        if baseline.ci95:
            left.axvspan(*map(scales[0].clip, baseline.ci95), color="#ececec", linewidth=0, zorder=0)
        left.axvline(baseline.mean, color=GREY, linewidth=0.8, zorder=1)
    right.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    for axes, scale, drawn in ((left, scales[0], means), (right, scales[1], deltas)):
        set_row_axis(axes, labels, height)
        axes.set_xlim(scale.low, scale.high)
        for name, (value, ci95) in drawn.items():
            draw_point(axes, scale, value, ci95, places[name], styles[name], data.metric.digits)
    left.set_xlabel(data.metric.heading)
    right.set_xlabel(with_unit("Difference to the baseline", data.metric.difference_unit))
    right.tick_params(axis="y", labelleft=False)
    draw_remarks(right, data, places)
    return page.figure
