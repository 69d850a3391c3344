"""The figure `curves`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import BandPoint, CurvesData, CurvesRow
from metaformer_ablate.analysis.figures.look import Look
from metaformer_ablate.analysis.figures.page import SMALL, TICK, Page, foot_of_axis, label_of
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.figures.style import ending_remark, row_styles, seeds_remark
from metaformer_ablate.drawing.text import line_height, text_height, text_width, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 0.14  # inches between panels


def curves_caption(data: CurvesData, look: Look) -> list[str]:
    several = any(len(row.seeds.get("ok", [])) > 1 for row in data.rows)
    diverged = any("diverged" in row.seeds for row in data.rows)
    return [
        f"{data.axis} after each epoch: mean over seeds" + ("; band: lowest to highest." if several else "."),
        "Grey: the baseline." if len(data.rows) > 1 else "",
        "Dashed: runs that diverged, up to their last whole epoch." if diverged else "",
        seeds_remark(data),
    ]


def draw_curves(data: CurvesData, look: Look) -> Figure:
    """A panel per row, the baseline's mean in each; all have the same axes."""
    rows, styles, size = data.rows, row_styles(data), look.size
    columns = max(1, min(int(look.width * 72 / size / 10), 6 if len(rows) > 12 else 4, len(rows)))
    across, down = _axes_of(data)
    numbers = [text_width(text, size) for tall in (0.7, 1.4) for _, text in down.ticks(tall, _height(size))]
    left = line_height(size) * 1.3 + max(numbers) + TICK
    width = (look.width - left - 0.1 - GAP * (columns - 1)) / columns
    height = min(max(width * 0.8, line_height(size) * 5.5), 1.6 * look.times)
    titles = {row.name: _title(row, look, width) for row in rows}
    lines = [rows[i : i + columns] for i in range(0, len(rows), columns)]
    heads = [max(text_height(titles[row.name], size * SMALL) for row in line) + 0.05 for line in lines]
    # Below the last panel of a column that is one short, the axis would be without numbers.
    between, bottom = 0.11, foot_of_axis(look, 1)
    y = top = bottom + sum(heads) + len(lines) * height + between * (len(lines) - 1)
    page = Page(data, look, top, curves_caption(data, look))
    for n, (line, head) in enumerate(zip(lines, heads, strict=True)):
        y -= head + height
        for i, row in enumerate(line):
            axes = page.axes(left + i * (width + GAP), y, width, height)
            page.text(left + i * (width + GAP), y + height + 0.04, titles[row.name], size=size * SMALL, va="bottom")
            across.set_on(axes, "x", width, lambda text: text_width(text, size))
            down.set_on(axes, "y", height, _height(size))
            last = n + 1 == len(lines) or i >= len(lines[n + 1])
            axes.tick_params(labelleft=not i, labelbottom=last)
            axes.grid(axis="y")
            _draw_row(axes, row, data.baseline_row, styles[row.name])
        y -= between
    page.text((left + page.width) / 2, 0.03, "Epoch", ha="center", va="bottom")
    page.text(0.02, (bottom + top) / 2, data.axis, rotation=90, va="center", ha="left")
    return page.figure


def _height(size: float) -> Any:
    return lambda text: text_height(text, size)


def _axes_of(data: CurvesData) -> tuple[Scale, Scale]:
    """One scale for the epochs and one for the values of all rows."""
    epochs = [point.epoch for row in data.rows for point in row.band]
    epochs += [epoch for row in data.rows for run in row.runs for epoch in run.epochs]
    values = [value for row in data.rows for point in row.band for value in (point.low, point.high)]
    values += [value for row in data.rows for run in row.runs if run.status == "diverged" for value in run.values]
    return Scale.all_of([0.0, *epochs]), Scale.all_of(values)


def _title(row: CurvesRow, look: Look, width: float) -> str:
    ending = ending_remark(row)
    title = label_of(row, look) + (f" ({ending})" if ending else "")
    return wrap(title, width + GAP / 2, look.size * SMALL)


def _draw_row(axes: Any, row: CurvesRow, baseline: CurvesRow, style: dict[str, Any]) -> None:
    if row is not baseline:
        _line(axes, baseline.band, color="#9a9a9a", linewidth=0.9)
    if row.band:
        epochs = [point.epoch for point in row.band]
        low, high = ([getattr(point, end) for point in row.band] for end in ("low", "high"))
        axes.fill_between(epochs, low, high, color=style["color"], alpha=0.25, linewidth=0)
        _line(axes, row.band, color=style["color"])
    for run in row.runs:
        if run.status == "diverged":
            axes.plot(run.epochs, run.values, color=style["color"], linewidth=0.8, linestyle=(0, (3, 1.5)))
            axes.plot(run.epochs[-1:], run.values[-1:], color=style["color"], marker="x", markersize=4)


def _line(axes: Any, band: Sequence[BandPoint], **style: Any) -> None:
    dot = {"marker": "o", "markersize": 2.5} if len(band) == 1 else {}
    axes.plot([point.epoch for point in band], [point.mean for point in band], **style, **dot)
