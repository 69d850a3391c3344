"""The figures `cost` and `paper`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import COSTS
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.figures.style import (
    GREY,
    LINE_HEIGHT,
    Page,
    ending_remark,
    format_number,
    hollow_remark,
    plain_label,
    row_styles,
    seeds_remark,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_cost(data: dict[str, Any]) -> Figure:
    styles, speed = row_styles(data), data["x"] == "images_per_second"
    known = [row for row in data["rows"] if row["mean"] is not None and row["x"] is not None]
    largest = max((row["x"] for row in known), default=1)
    factor, unit = (1, "") if speed else (1e9, " (G)") if largest >= 1e9 else (1e6, " (M)")
    points = [
        _Point(
            row["name"], plain_label(row["label"]), row["x"] / factor, row["mean"],
            None if row["x_low"] == row["x_high"] else (row["x_low"] / factor, row["x_high"] / factor), row["ci95"],
            f"{row['mean']:.2f}",
        )
        for row in known
    ]  # fmt: skip
    devices = data["devices"]
    caption = [
        "Mean top-1 over seeds with the 95% t interval of the mean.",
        "Speed: median over seeds, bar from slowest to fastest." if speed else "",
        f"Device: {devices[0]}." if speed and len(devices) == 1 else "",
        f"Not of one device, so speeds do not compare: {'; '.join(devices)}." if len(devices) > 1 else "",
        seeds_remark(data),
        hollow_remark(point.ci95 for point in points),
    ]
    return _scatter(data, points, styles, caption, COSTS[data["x"]] + unit, "Top-1 (%)")


def draw_paper(data: dict[str, Any]) -> Figure:
    known = [row for row in data["rows"] if row["paper_delta"] is not None and row["delta"]]
    points = [
        _Point(
            row["name"],
            plain_label(row["label"]),
            row["paper_delta"],
            row["delta"]["mean"],
            None,
            row["delta"]["ci95"],
            f"paper {format_number(row['paper_delta'], 1, '+')}, here {format_number(row['delta']['mean'], 2, '+')}",
        )
        for row in known
    ]
    tau = ((data["agreement"] or {}).get("kendall") or {}).get("value")
    caption = [
        "Differences to the baseline: the paper's on ImageNet, as printed, against ours over common seeds with the 95% "
        "paired t interval. Dashed: the same difference. In the two shaded quarters the sign is the other one.",
        "" if tau is None else f"Kendall's tau-b of top-1 over the rows: {format_number(tau, 2)}.",
        seeds_remark(data),
        hollow_remark(point.ci95 for point in points),
    ]
    x, y = "Difference in the paper (points)", "Difference here (points)"
    return _scatter(data, points, row_styles(data), caption, x, y, diagonal=True)


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
    data: dict[str, Any],
    points: Sequence[_Point],
    styles: dict[str, dict[str, Any]],
    caption: Sequence[str],
    x_label: str,
    y_label: str,
    diagonal: bool = False,
) -> Figure:
    """Points with their intervals, their labels in a column at the side, from top to bottom as the points stand."""
    ys = Scale.of([p.y for p in points], [p.ci95 for p in points], zero=diagonal)
    if diagonal:  # of one scale along both axes, so that a point's place shows how large both differences are
        xs = Scale.of([p.x for p in points], zero=True)
        xs = ys = Scale(min(xs.low, ys.low), max(xs.high, ys.high))
    else:
        xs = Scale.all_of([x for p in points for x in p.x_range or [p.x]])
    off = any(p.x not in xs or p.y not in ys for p in points)
    absent = [row for row in data["rows"] if row["name"] not in {p.name for p in points}]
    if diagonal:
        absent = [row for row in absent if row["name"] != data["baseline"]]
    endings = {row["name"]: ending_remark(row) for row in data["rows"]}
    texts = {}
    for p in points:
        remark = ", ".join([p.number] * (p.x not in xs or p.y not in ys) + [endings[p.name]] * bool(endings[p.name]))
        texts[p.name] = wrapped(p.label + (f" ({remark})" if remark else ""), 48)
    missing = [wrapped(f"{row['label']} ({_why_absent(row, diagonal)})", 48) for row in absent]
    lines = sum(text.count("\n") + 1 for text in texts.values())
    below = sum(text.count("\n") + 1 for text in missing)
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
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.axvline(0, color=GREY, linewidth=0.6)
        axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.fill_between([xs.low, 0], 0, ys.high, color="#f3f3f3", linewidth=0, zorder=0)
        axes.fill_between([0, xs.high], ys.low, 0, color="#f3f3f3", linewidth=0, zorder=0)
    places = _side_by_side(points, xs, ys)
    for p in points:
        style, colour = styles[p.name], styles[p.name]["color"]
        x, y = places[p.name]
        inside = p.x in xs and p.y in ys
        if p.ci95 and inside:
            axes.plot([x, x], [ys.clip(end) for end in p.ci95], color=colour, linewidth=0.8)
        if p.x_range and inside:
            axes.plot(p.x_range, [y, y], color=colour, linewidth=0.8)
        edge = "v" if p.y < ys.low else "^" if p.y > ys.high else "<" if p.x < xs.low else ">"
        face = colour if p.ci95 else "white"
        axes.plot(x, y, color=colour, marker=style["marker"] if inside else edge, markerfacecolor=face, clip_on=False)
    _label_column(axes, side, points, texts, styles, places, foot, height)
    if missing:
        side.text(
            0.06, 0.02, "Without a point:\n" + "\n".join(missing), va="bottom", size=7, color=GREY, style="italic"
        )
    return page.figure


def _side_by_side(points: Sequence[_Point], xs: Scale, ys: Scale) -> dict[str, tuple[float, float]]:
    """Where each point is drawn: those of one x a little beside each other, that intervals do not hide intervals."""
    places = {}
    for x in {p.x for p in points}:
        here = [p for p in points if p.x == x]
        step = (xs.high - xs.low) * min(0.018, 0.16 / len(here))
        for i, p in enumerate(here):
            places[p.name] = xs.clip(xs.clip(x) + (i - (len(here) - 1) / 2) * step), ys.clip(p.y)
    return places


def _why_absent(row: dict[str, Any], diagonal: bool) -> str:
    if ending := ending_remark(row):
        return ending
    if diagonal and row["paper_top1"] is None:
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
