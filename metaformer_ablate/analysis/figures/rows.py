"""The figure `rows`, and the axis of rows that `seeds` has too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import FigureData, RowsData
from metaformer_ablate.analysis.figures.look import Look
from metaformer_ablate.analysis.figures.page import (
    SMALL,
    Page,
    foot_of_axis,
    widest,
    wrapped_labels,
    wrapped_remarks,
)
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.figures.style import (
    break_remark,
    format_number,
    hollow_remark,
    of_seeds,
    row_styles,
    seed_counts,
    seeds_remark,
    with_unit,
)
from metaformer_ablate.analysis.tables.columns import difference_range, metric_range, within_range
from metaformer_ablate.drawing.canvas import GREY
from metaformer_ablate.drawing.text import line_height, text_height, text_width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INDENT = 0.1  # inches of the labels below their group's name
BETWEEN = 0.16  # inches between what stands side by side

Column = tuple[str, dict[str, str]]  # a heading and the texts of rows by name


class RowAxis:
    """Rows from top to bottom with their labels at the left and columns of text at the right of one or more panels."""

    def __init__(self, data: FigureData, look: Look, columns: Sequence[Column] = ()):
        self.data, self.look = data, look
        size = look.size
        counts = {row.name: str(row.n) for row in data.rows}
        remarks = wrapped_remarks(data.rows, look, look.width * 0.15)
        self.columns = [
            *columns,
            *([("n", counts)] if len(seed_counts(data)) > 1 or "0" in counts.values() else []),
            *([("", remarks)] if remarks else []),
        ]
        self.widths = [
            max(text_width(heading, size), widest(texts, size if heading else size * SMALL))
            for heading, texts in self.columns
        ]
        self.headed = len({row.group for row in data.rows}) > 1
        self.indent = INDENT if self.headed else 0.0
        self.labels = wrapped_labels(data.rows, look, look.width * (0.34 if look.narrow else 0.3))
        self.left = max(self.indent + widest(self.labels, size), widest(self._groups(), size, True)) + BETWEEN
        self.right = sum(width + BETWEEN for width in self.widths)
        self.places: dict[str, float] = {}  # inches from the top
        self.headings: list[tuple[str, float]] = []
        self.height = self._place(remarks)

    def _groups(self) -> list[str]:
        return [group for group, _ in groupby(row.group for row in self.data.rows)] if self.headed else []

    def _place(self, remarks: dict[str, str]) -> float:
        line, y = line_height(self.look.size), 0.0
        for group, rows in groupby(self.data.rows, key=lambda row: row.group):
            if self.headed:
                y += line * (0.45 if self.headings else 0.1)
                self.headings.append((group, y + line / 2))
                y += line * 1.1
            for row in rows:
                taken = text_height(self.labels[row.name], self.look.size)
                taken = max(taken, text_height(remarks.get(row.name, ""), self.look.size * SMALL)) + line * 0.3
                self.places[row.name] = y + taken / 2
                y += taken
        return y

    @property
    def top(self) -> float:
        """Inches above the panels, where columns have headings."""
        return line_height(self.look.size) * 1.2 if any(heading for heading, _ in self.columns) else 0.04

    def draw(self, page: Page, bottom: float) -> None:
        """The labels and columns beside panels whose lower end is so many inches above that of the page."""
        size, top = self.look.size, bottom + self.height
        for text, place in self.headings:
            page.text(0.02, top - place, text, weight="bold", va="center_baseline")
        for name, place in self.places.items():
            page.text(0.02 + self.indent, top - place, self.labels[name], va="center")
        x = page.width - self.right
        for (heading, texts), width in zip(self.columns, self.widths, strict=True):
            x += BETWEEN
            number = bool(heading)
            at, side = (x + width, "right") if number else (x, "left")
            if heading:
                page.text(at, top + 0.04, heading, ha=side, va="bottom", color=GREY)
            for name, text in texts.items():
                page.text(
                    at, top - self.places[name], text, ha=side, va="center", size=size if number else size * SMALL
                )
            x += width

    def panel(self, page: Page, left: float, bottom: float, width: float, scale: Scale) -> Any:
        """Axes of a scale for points at `places`."""
        axes = page.axes(left, bottom, width, self.height)
        axes.set_ylim(self.height, 0)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        scale.set_on(axes, "x", width, lambda text: text_width(text, self.look.size))
        return axes


def has_numbers(data: FigureData) -> bool:
    return any(row.n or getattr(row, "runs", None) for row in data.rows)


def draw_nothing(data: FigureData, look: Look) -> Figure:
    """The rows and how their runs ended, where no run has a number."""
    rows = RowAxis(data, look)
    page = Page(data, look, rows.height + rows.top + 0.04 + line_height(look.size), ["No run has a result yet."])
    rows.draw(page, 0.04 + line_height(look.size))
    page.text(0.02, 0.02, "No run has a result yet.", va="bottom", color=GREY)
    return page.figure


def _drawn(data: RowsData) -> tuple[dict[str, tuple[float, Any]], dict[str, tuple[float, Any]]]:
    """Means and differences with their intervals by row, these without what cannot be."""
    metric = data.metric
    within, apart = metric_range(metric), difference_range(metric)
    means = {row.name: (row.mean, within_range(row.ci95, within)) for row in data.rows if row.mean is not None}
    deltas = {row.name: (row.delta.mean, within_range(row.delta.ci95, apart)) for row in data.rows if row.delta}
    return means, deltas


def _scales(data: RowsData) -> tuple[Scale, Scale]:
    of = [zip(*drawn.values(), strict=True) if drawn else ((), ()) for drawn in _drawn(data)]
    (means, their_ci95), (deltas, ci95) = of
    return Scale.of(data.metric, means, their_ci95), Scale.of(data.metric, deltas, ci95, zero=True)


def rows_caption(data: RowsData, look: Look) -> list[str]:
    means, deltas = _drawn(data)
    mean = f"mean {data.metric.phrase} over seeds"
    difference = "difference from the baseline, paired by seed, with its 95% t interval"
    return [
        f"Mean {difference}; the column has the {mean}."
        if look.narrow
        else f"Left: {mean} with its 95% t interval; grey: the baseline's. Right: mean {difference}.",
        seeds_remark(data),
        hollow_remark(ci95 for drawn in ((deltas,) if look.narrow else (means, deltas)) for _, ci95 in drawn.values()),
        "No difference is shown where a seed diverged." if any("diverged" in row.seeds for row in data.rows) else "",
        break_remark([b for scale in _scales(data)[look.narrow :] for b in scale.breaks]),
    ]


def draw_rows(data: RowsData, look: Look) -> Figure:
    metric, styles = data.metric, row_styles(data)
    means, deltas = _drawn(data)
    texts = {name: format_number(mean, metric.digits) for name, (mean, _) in means.items()}
    rows = RowAxis(data, look, [(metric.heading, texts)] if look.narrow else [])
    bottom = foot_of_axis(look, 2)
    page = Page(data, look, bottom + rows.height + rows.top, rows_caption(data, look))
    rows.draw(page, bottom)
    room = page.width - rows.left - rows.right - 0.12
    number = 1 if look.narrow else 2
    width = (room - BETWEEN * 1.5 * (number - 1)) / number
    over = f"{of_seeds(data)}, " if len(seed_counts(data)) == 1 else ""
    difference = with_unit("Difference" if look.narrow else "Difference from the baseline", metric.difference_unit)
    panels = [
        (means, metric.heading, f"mean of {over}95% interval"),
        (deltas, difference, f"{over}95% paired interval" if look.narrow else f"paired by seed, {over}95% interval"),
    ]
    baseline = means.get(data.baseline)
    for i, (drawn, heading, about) in enumerate(panels[-number:]):
        scale = _scales(data)[i + 2 - number]
        axes = rows.panel(page, rows.left + i * (width + BETWEEN * 1.5), bottom, width, scale)
        axes.set_xlabel(f"{heading}\n{about}", linespacing=1.15)
        if drawn is means and baseline:
            if baseline[1]:
                axes.axvspan(*baseline[1], color="#ececec", linewidth=0, zorder=0)
            axes.axvline(baseline[0], color=GREY, linewidth=0.8, zorder=1)
        elif drawn is deltas:
            axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
        for name, (value, ci95) in drawn.items():
            draw_point(axes, value, ci95, rows.places[name], styles[name])
    return page.figure


def draw_point(axes: Any, value: float, ci95: Sequence[float] | None, y: float, style: dict[str, Any]) -> None:
    """A dot with its horizontal interval; hollow without one."""
    colour = style["color"]
    if ci95:
        axes.plot(ci95, [y, y], color=colour, solid_capstyle="butt")
    axes.plot(
        value, y, color=colour, marker=style["marker"], markerfacecolor=colour if ci95 else "white", clip_on=False
    )
