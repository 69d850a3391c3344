"""The figures `cost` and `paper`: points at their true places, with labels beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import COSTS, CostData, FigureData, PaperData
from metaformer_ablate.analysis.figures.labels import LEADER, Placed, Spot, place_labels
from metaformer_ablate.analysis.figures.look import Look
from metaformer_ablate.analysis.figures.page import SMALL, TICK, Page, foot_of_axis, label_of, widest
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.figures.style import (
    break_remark,
    ending_remark,
    format_number,
    hollow_remark,
    row_styles,
    seeds_remark,
    with_unit,
)
from metaformer_ablate.analysis.tables.columns import difference_range, metric_range, within_range
from metaformer_ablate.drawing.canvas import GREY
from metaformer_ablate.drawing.text import line_height, text_height, text_width, wrap
from metaformer_ablate.tasks.registry import get_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Point:
    name: str
    x: float
    y: float
    x_range: tuple[float, float] | None
    ci95: Sequence[float] | None


@dataclass(frozen=True)
class _Plot:
    """Points, the scales and names of their axes, and whether both axes are of one quantity."""

    points: Sequence[_Point]
    xs: Scale
    ys: Scale
    x_name: str
    y_name: str
    diagonal: bool = False


def _cost_plot(data: CostData) -> _Plot:
    speed, metric = data.x == "images_per_second", data.metric
    largest = max((row.x for row in data.rows if row.mean is not None and row.x is not None), default=1)
    factor, unit = (1, "") if speed else (1e9, " (G)") if largest >= 1e9 else (1e6, " (M)")
    points = []
    for row in data.rows:
        if row.mean is None or row.x is None or row.x_low is None or row.x_high is None:
            continue
        x_range = None if row.x_low == row.x_high else (row.x_low / factor, row.x_high / factor)
        ci95 = within_range(row.ci95, metric_range(metric))
        points.append(_Point(row.name, row.x / factor, row.mean, x_range, ci95))
    xs = Scale.all_of([x for p in points for x in p.x_range or [p.x]])
    ys = Scale.of(metric, [p.y for p in points], [p.ci95 for p in points])
    return _Plot(points, xs, ys, COSTS[data.x] + unit, metric.heading)


def cost_caption(data: CostData, look: Look) -> list[str]:
    plot, speed, devices = _cost_plot(data), data.x == "images_per_second", data.devices
    return [
        f"Mean {data.metric.phrase} over seeds with its 95% t interval.",
        "Speed: median over seeds, evaluation included; bar: slowest to fastest." if speed else "",
        f"Device: {devices[0]}." if speed and len(devices) == 1 else "",
        f"Several devices, so speeds do not compare: {'; '.join(devices)}." if len(devices) > 1 else "",
        seeds_remark(data),
        hollow_remark(point.ci95 for point in plot.points),
        break_remark(plot.ys.breaks),
    ]


def draw_cost(data: CostData, look: Look) -> Figure:
    return _draw(data, look, _cost_plot(data), cost_caption(data, look))


def _paper_plot(data: PaperData) -> _Plot:
    metric, points = data.metric, []
    for row in data.rows:
        if row.paper_delta is not None and row.delta is not None:
            ci95 = within_range(row.delta.ci95, difference_range(metric))
            points.append(_Point(row.name, row.paper_delta, row.delta.mean, None, ci95))
    # Of one scale along both axes, so that a point's place shows how large both differences are.
    xs = Scale.of(metric, [p.x for p in points], zero=True)
    ys = Scale.of(metric, [p.y for p in points], [p.ci95 for p in points], zero=True)
    both = Scale.around(xs, ys)
    x, y = (with_unit(f"Difference {side}", metric.difference_unit) for side in ("in the paper", "here"))
    return _Plot(points, both, both, x, y, diagonal=True)


def paper_caption(data: PaperData, look: Look) -> list[str]:
    plot = _paper_plot(data)
    where = " on ImageNet" if data.task is get_task() else ""  # what the paper trains classification on
    tau = ((data.agreement or {}).get("kendall") or {}).get("value")
    return [
        f"Difference from the baseline: the paper's{where}, as printed, and ours, paired by seed, with its 95% t "
        "interval. Dashed: the same difference. Shaded: our sign disagrees with the paper's.",
        "" if tau is None else f"Kendall's tau-b of {data.metric.phrase} over the rows: {format_number(tau, 2)}.",
        seeds_remark(data),
        hollow_remark(point.ci95 for point in plot.points),
        break_remark(plot.xs.breaks),
    ]


def draw_paper(data: PaperData, look: Look) -> Figure:
    return _draw(data, look, _paper_plot(data), paper_caption(data, look))


def _draw(data: FigureData, look: Look, plot: _Plot, caption: Sequence[str]) -> Figure:
    size, line, styles = look.size, line_height(look.size), row_styles(data)
    labels = _labels(data, look, plot)
    missing = _missing(data, look, plot)
    bottom = foot_of_axis(look, 1) + (text_height(missing, size * SMALL) + 0.06 if missing else 0.0)
    head = line * 1.5 if plot.diagonal else 0.05
    numbers = [text_width(text, size) for tall in (1.5, 3, 6) for _, text in plot.ys.ticks(tall, lambda text: line)]
    left = line * 1.3 + max(numbers) + TICK
    width, height, placed = _layout(look.width - left - 0.08, look, plot, labels)
    page = Page(data, look, bottom + height + head, caption)
    axes = page.axes(left, bottom, width, height)
    axes.patch.set_visible(False)
    axes.grid()
    axes.set_xlabel(plot.x_name)
    page.text(0.02, bottom + height / 2, plot.y_name, rotation=90, va="center", ha="left")
    plot.xs.set_on(axes, "x", width, lambda text: text_width(text, size))
    plot.ys.set_on(axes, "y", height, lambda text: line)
    if plot.diagonal:
        _draw_diagonal(page, axes, plot, (left, bottom + height + 0.05))
    for point in plot.points:
        _draw_point(axes, point, styles[point.name], look.times)
        style, text = styles[point.name], labels[point.name]
        if point.name in placed.beside:
            x, y = placed.beside[point.name]
            page.text(left + x, bottom + y, text, va="center", ha="left")
            continue
        y = placed.column[point.name]
        at = plot.xs.place(point.x), plot.ys.place(point.y)
        axes.plot(
            [at[0], 1 + LEADER / width], [at[1], y / height],
            transform=axes.transAxes, clip_on=False, zorder=0.9,
            color=style["color"], linewidth=0.5 * look.times, alpha=0.6, gid=f"leader {point.name}",
        )  # fmt: skip
        page.text(left + width + LEADER + 0.03, bottom + y, text, va="center", ha="left")
    if missing:
        page.text(0.02, 0.02, missing, size=size * SMALL, color="#404040", va="bottom")
    return page.figure


def _layout(room: float, look: Look, plot: _Plot, labels: dict[str, str]) -> tuple[float, float, Placed]:
    """The size of the axes in inches, and where the labels stand: without a column where all find room."""
    size = look.size
    column = LEADER + 0.05 + widest(labels, size)
    for with_column in (False, True):
        width = room - column * with_column
        tall = sum(text_height(labels[p.name], size) + 0.03 for p in plot.points) if with_column else 0.0
        height = max(width * (0.85 if plot.diagonal else 0.66), tall, 1.5)
        spots = [_spot(p, plot, width, height, labels, size) for p in plot.points]
        placed = place_labels(spots, width, height, _lines(plot, width, height), with_column, look.times)
        if placed is not None:
            break
    assert placed is not None  # with a column there always is one
    return width, height, placed


def _lines(plot: _Plot, width: float, height: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The lines of zero and of the same difference, in inches."""
    if not plot.diagonal:
        return []
    x, y = plot.xs.place(0) * width, plot.ys.place(0) * height
    return [((x, 0), (x, height)), ((0, y), (width, y)), ((0, 0), (width, height))]


def _spot(p: _Point, plot: _Plot, width: float, height: float, labels: dict[str, str], size: float) -> Spot:
    x, y = plot.xs.place(p.x) * width, plot.ys.place(p.y) * height
    bars = []
    if p.ci95:
        low, high = (plot.ys.place(end) * height for end in p.ci95)
        bars.append((x - 0.01, low, x + 0.01, high))
    if p.x_range:
        low, high = (plot.xs.place(end) * width for end in p.x_range)
        bars.append((low, y - 0.01, high, y + 0.01))
    text = labels[p.name]
    return Spot(p.name, x, y, text_width(text, size) + 0.02, text_height(text, size) + 0.02, tuple(bars))


def _labels(data: FigureData, look: Look, plot: _Plot) -> dict[str, str]:
    """The label of each point with how its runs ended, where that is to be said."""
    texts = {}
    for row in data.rows:
        ending = ending_remark(row)
        text = label_of(row, look) + (f" ({ending})" if ending else "")
        texts[row.name] = wrap(text, look.width * (0.34 if look.narrow else 0.27), look.size)
    return {point.name: texts[point.name] for point in plot.points}


def _missing(data: FigureData, look: Look, plot: _Plot) -> str:
    """The rows without a point, each with the reason; empty where each has one."""
    there = {point.name for point in plot.points} | ({data.baseline} if plot.diagonal else set())
    absent = [row for row in data.rows if row.name not in there]
    told = ", ".join(f"{label_of(row, look)} ({_why_absent(row, data.baseline_row, plot.diagonal)})" for row in absent)
    return wrap(f"Without a point: {told}.", look.width - 0.1, look.size * SMALL) if absent else ""


def _why_absent(row: Any, baseline: Any, diagonal: bool) -> str:
    if ending := ending_remark(row):
        return ending
    if diagonal and row.printed is None:
        return "no number in the paper"
    if not diagonal:
        return "not counted"
    return "no difference: the baseline " + ("diverged" if "diverged" in baseline.seeds else "has no such seed")


def _draw_diagonal(page: Page, axes: Any, plot: _Plot, legend: tuple[float, float]) -> None:
    low, high = plot.xs.ends
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0.6)
    axes.axvline(0, color=GREY, linewidth=0.6, zorder=0.6)
    (same,) = axes.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0.7)
    opposite = axes.fill_between([low, 0], 0, high, color="#f1f1f1", linewidth=0, zorder=0)
    axes.fill_between([0, high], low, 0, color="#f1f1f1", linewidth=0, zorder=0)
    page.figure.legend(
        [same, opposite], ["same difference", "opposite sign"], ncols=2, loc="lower left", borderpad=0, borderaxespad=0,
        bbox_to_anchor=page.fraction(*legend), columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


def _draw_point(axes: Any, p: _Point, style: dict[str, Any], times: float) -> None:
    """A marker with its bars; hollow without an interval."""
    colour = style["color"]
    if p.ci95:
        axes.plot([p.x, p.x], p.ci95, color=colour, linewidth=0.8 * times)
    if p.x_range:
        axes.plot(p.x_range, [p.y, p.y], color=colour, linewidth=0.8 * times)
    # A thin edge of white tells points apart that lie on each other.
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.35 * times} if p.ci95 else {"markerfacecolor": "white"}
    axes.plot(p.x, p.y, color=colour, marker=style["marker"], markersize=5 * times, clip_on=False, **edge)
