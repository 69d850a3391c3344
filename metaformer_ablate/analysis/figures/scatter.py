"""The figures `cost` and `paper`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import COSTS, CostData, FigureData, PaperData
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.figures.style import (
    LINE_HEIGHT,
    Page,
    ending_remark,
    format_number,
    hollow_remark,
    plain_label,
    row_styles,
    seeds_remark,
    with_unit,
    wrapped,
)
from metaformer_ablate.drawing.canvas import GREY
from metaformer_ablate.tasks.registry import get_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_cost(data: CostData) -> Figure:
    speed, metric = data.x == "images_per_second", data.metric
    largest = max((row.x for row in data.rows if row.mean is not None and row.x is not None), default=1)
    factor, unit = (1, "") if speed else (1e9, " (G)") if largest >= 1e9 else (1e6, " (M)")
    points = []
    for row in data.rows:
        if row.mean is None or row.x is None or row.x_low is None or row.x_high is None:
            continue
        x_range = None if row.x_low == row.x_high else (row.x_low / factor, row.x_high / factor)
        number = f"{row.mean:.{metric.digits}f}"
        label = plain_label(row.label)
        points.append(_Point(row.name, label, row.x / factor, row.mean, x_range, row.ci95, number))
    devices = data.devices
    caption = [
        f"Mean {metric.phrase} over seeds with the 95% t interval of the mean.",
        "Speed: median over seeds, bar from slowest to fastest." if speed else "",
        f"Device: {devices[0]}." if speed and len(devices) == 1 else "",
        f"Not of one device, so speeds do not compare: {'; '.join(devices)}." if len(devices) > 1 else "",
        seeds_remark(data),
        hollow_remark(point.ci95 for point in points),
    ]
    return _scatter(data, points, caption, COSTS[data.x] + unit, metric.heading)


def draw_paper(data: PaperData) -> Figure:
    metric = data.metric
    points = []
    for row in data.rows:
        if row.paper_delta is None or row.delta is None:
            continue
        paper, here = (
            format_number(value, digits, "+")
            for value, digits in ((row.paper_delta, metric.paper_digits), (row.delta.mean, metric.digits))
        )
        number, label = f"paper {paper}, here {here}", plain_label(row.label)
        points.append(_Point(row.name, label, row.paper_delta, row.delta.mean, None, row.delta.ci95, number))
    where = " on ImageNet" if data.task is get_task() else ""  # what the paper trains classification on
    tau = ((data.agreement or {}).get("kendall") or {}).get("value")
    caption = [
        f"Differences to the baseline: the paper's{where}, as printed, against ours over common seeds with the 95% "
        "paired t interval. Dashed: the same difference. Shaded: our sign disagrees with the paper's.",
        "" if tau is None else f"Kendall's tau-b of {metric.phrase} over the rows: {format_number(tau, 2)}.",
        seeds_remark(data),
        hollow_remark(point.ci95 for point in points),
    ]
    x, y = (with_unit(f"Difference {side}", metric.difference_unit) for side in ("in the paper", "here"))
    return _scatter(data, points, caption, x, y, diagonal=True)


@dataclass(frozen=True)
class _Point:
    name: str
    label: str
    x: float
    y: float
    x_range: tuple[float, float] | None
    ci95: Sequence[float] | None
    number: str  # said beside the label where the point is off the scale


def _scatter(
    data: FigureData,
    points: Sequence[_Point],
    caption: Sequence[str],
    x_label: str,
    y_label: str,
    diagonal: bool = False,
) -> Figure:
    """Points with their intervals, their labels in a column at the side, from top to bottom as the points stand."""
    xs, ys = _scales(data, points, diagonal)
    off = any(p.x not in xs or p.y not in ys for p in points)
    texts, missing = _texts(data, points, xs, ys), _missing(data, points, diagonal)
    lines, below = (sum(text.count("\n") + 1 for text in found) for found in (texts.values(), missing))
    foot = LINE_HEIGHT * (below + 1.8) if missing else 0.0
    height = max(3.4, 0.5 + LINE_HEIGHT * 1.25 * lines + foot)
    if len({p.x for p in points}) < len(points):
        caption = [*caption, "Rows with the same horizontal value stand side by side."]
    page = Page(data, height, [*caption, "Triangle: off the scale, with its numbers in the label." if off else ""])
    axes, side = page.figure.subplots(1, 2, width_ratios=(1.25, 1))
    side.set_axis_off()
    side.set_xlim(0, 1)
    side.set_ylim(0, height)
    axes.set_xlim(xs.low, xs.high)
    axes.set_ylim(ys.low, ys.high)
    axes.grid()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if diagonal:
        _draw_diagonal(axes, xs, ys)
    styles, places = row_styles(data), _side_by_side(points, xs, ys)
    for p in points:
        _draw_point(axes, p, styles[p.name], places[p.name], xs, ys)
    _label_column(axes, side, points, texts, styles, places, foot, height)
    if missing:
        side.text(
            0.06, 0.02, "Without a point:\n" + "\n".join(missing), va="bottom", size=7, color=GREY, style="italic"
        )
    return page.figure


def _scales(data: FigureData, points: Sequence[_Point], diagonal: bool) -> tuple[Scale, Scale]:
    ys = Scale.of(data.metric, [p.y for p in points], [p.ci95 for p in points], zero=diagonal)
    if not diagonal:
        return Scale.all_of([x for p in points for x in p.x_range or [p.x]]), ys
    # Of one scale along both axes, so that a point's place shows how large both differences are.
    xs = Scale.of(data.metric, [p.x for p in points], zero=True)
    both = Scale(min(xs.low, ys.low), max(xs.high, ys.high))
    return both, both


def _texts(data: FigureData, points: Sequence[_Point], xs: Scale, ys: Scale) -> dict[str, str]:
    """The label of each point, with its numbers where it is off the scale and how its runs ended."""
    endings = {row.name: ending_remark(row) for row in data.rows}
    texts = {}
    for p in points:
        remark = ", ".join([p.number] * (p.x not in xs or p.y not in ys) + [endings[p.name]] * bool(endings[p.name]))
        texts[p.name] = wrapped(p.label + (f" ({remark})" if remark else ""), 48)
    return texts


def _missing(data: FigureData, points: Sequence[_Point], diagonal: bool) -> list[str]:
    """The rows without a point, each with the reason."""
    absent = [row for row in data.rows if row.name not in {p.name for p in points}]
    if diagonal:
        absent = [row for row in absent if row.name != data.baseline]
    return [wrapped(f"{row.label} ({_why_absent(row, diagonal)})", 48) for row in absent]


def _draw_diagonal(axes: Any, xs: Scale, ys: Scale) -> None:
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.axvline(0, color=GREY, linewidth=0.6)
    axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    axes.fill_between([xs.low, 0], 0, ys.high, color="#f3f3f3", linewidth=0, zorder=0)
    axes.fill_between([0, xs.high], ys.low, 0, color="#f3f3f3", linewidth=0, zorder=0)


def _draw_point(axes: Any, p: _Point, style: dict[str, Any], place: tuple[float, float], xs: Scale, ys: Scale) -> None:
    """A marker with its bars; a triangle at the edge where it is off the scale."""
    colour = style["color"]
    x, y = place
    inside = p.x in xs and p.y in ys
    if p.ci95 and inside:
        axes.plot([x, x], [ys.clip(end) for end in p.ci95], color=colour, linewidth=0.8)
    if p.x_range and inside:
        axes.plot(p.x_range, [y, y], color=colour, linewidth=0.8)
    edge = "v" if p.y < ys.low else "^" if p.y > ys.high else "<" if p.x < xs.low else ">"
    face = colour if p.ci95 else "white"
    axes.plot(x, y, color=colour, marker=style["marker"] if inside else edge, markerfacecolor=face, clip_on=False)


def _side_by_side(points: Sequence[_Point], xs: Scale, ys: Scale) -> dict[str, tuple[float, float]]:
    """Where each point is drawn: those of one x a little beside each other, that intervals do not hide intervals."""
    places = {}
    for x in {p.x for p in points}:
        here = [p for p in points if p.x == x]
        step = (xs.high - xs.low) * min(0.018, 0.16 / len(here))
        for i, p in enumerate(here):
            places[p.name] = xs.clip(xs.clip(x) + (i - (len(here) - 1) / 2) * step), ys.clip(p.y)
    return places


def _why_absent(row: Any, diagonal: bool) -> str:
    if ending := ending_remark(row):
        return ending
    if diagonal and row.printed is None:
        return "no number in the paper"
    return "no difference: the baseline has no such seed" if diagonal else "not counted"


def _label_column(
    axes: Any,
    side: Any,
    points: Sequence[_Point],
    texts: dict[str, str],
    styles: Any,
    places: dict[str, tuple[float, float]],
    foot: float,
    height: float,
) -> None:
    """A label a point, joined to it by a thin line; moved apart so that no two overlap."""
    from matplotlib.patches import ConnectionPatch

    ordered = sorted(points, key=lambda p: (-p.y, p.x, p.name))
    sizes = [LINE_HEIGHT * (1.15 * (texts[p.name].count("\n") + 1) + 0.1) for p in ordered]
    low, high = axes.get_ylim()
    wished = [height * (places[p.name][1] - low) / (high - low) for p in ordered]
    centres = spread_apart(wished, sizes, foot, height)
    for p, centre in zip(ordered, centres, strict=True):
        side.text(0.06, centre, texts[p.name], va="center", size=7, linespacing=1.05)
        side.plot(0.03, centre, clip_on=False, markersize=4, linestyle="none", **styles[p.name])
        line = ConnectionPatch(
            places[p.name], (0.015, centre), "data", "data", axesA=axes, axesB=side,
            color="#bdbdbd", linewidth=0.5, zorder=0.5,
        )  # fmt: skip
        line.set_in_layout(False)
        axes.figure.add_artist(line)


def spread_apart(wished: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Centres between low and high, from top to bottom, near to the wished ones: labels that touch move as one."""
    blocks: list[list[float]] = []  # [centre wished on average, size, labels]
    for wish, size in zip(wished, sizes, strict=True):
        blocks.append([wish, size, 1])
        while True:
            block = blocks[-1]
            block[0] = min(max(block[0], low + block[1] / 2), high - block[1] / 2)
            if len(blocks) == 1 or blocks[-2][0] - blocks[-2][1] / 2 >= block[0] + block[1] / 2:
                break
            above = blocks[-2]
            total = above[2] + block[2]
            blocks[-2:] = [[(above[0] * above[2] + block[0] * block[2]) / total, above[1] + block[1], total]]
    centres: list[float] = []
    for centre, size, labels in blocks:
        top = centre + size / 2
        for _ in range(int(labels)):
            centres.append(top - sizes[len(centres)] / 2)
            top -= sizes[len(centres) - 1]
    return centres
