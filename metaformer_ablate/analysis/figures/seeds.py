"""The figure `seeds`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import SeedsData
from metaformer_ablate.analysis.figures.look import Look
from metaformer_ablate.analysis.figures.page import Page, foot_of_axis
from metaformer_ablate.analysis.figures.rows import RowAxis
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.figures.style import MARKERS, break_remark, seeds_remark
from metaformer_ablate.drawing.canvas import COLOURS, GREY
from metaformer_ablate.drawing.text import line_height

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _scale(data: SeedsData) -> Scale:
    return Scale.of(data.metric, [value for row in data.rows for value in row.runs.values()])


def seeds_caption(data: SeedsData, look: Look) -> list[str]:
    return [
        f"{data.metric.label} of every run at the last epoch; the black stroke is the mean of the row.",
        seeds_remark(data),
        break_remark(_scale(data).breaks),
    ]


def draw_seeds(data: SeedsData, look: Look) -> Figure:
    """A line per row with a point per run; runs of one seed look the same."""
    rows, scale, line = RowAxis(data, look), _scale(data), line_height(look.size)
    seeds = sorted({seed for row in data.rows for seed in row.runs})
    few = len(seeds) <= len(COLOURS)
    bottom, legend = foot_of_axis(look, 1), line * 1.3 if few else 0.0
    page = Page(data, look, bottom + rows.height + rows.top + legend, seeds_caption(data, look))
    rows.draw(page, bottom)
    axes = rows.panel(page, rows.left, bottom, page.width - rows.left - rows.right - 0.12, scale)
    axes.set_xlabel(data.metric.heading)
    for i, seed in enumerate(seeds):
        # A little above and below each other, so that equal runs are both seen.
        shift = line * 0.3 * (2 * i / (len(seeds) - 1) - 1) if len(seeds) > 1 else 0.0
        style: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i]} if few else {"color": GREY, "marker": "o"}
        at = [(row.runs[seed], rows.places[row.name] + shift) for row in data.rows if seed in row.runs]
        xs, ys = zip(*at, strict=True)
        label = f"{'seed ' if not i else ''}{seed}" if few else None
        axes.plot(xs, ys, linestyle="none", label=label, clip_on=False, markersize=3.8 * look.times, **style)
    for row in data.rows:
        if row.mean is not None:
            y = rows.places[row.name]
            axes.plot([row.mean] * 2, [y - line * 0.5, y + line * 0.5], color="black", linewidth=1.3 * look.times)
    if few and seeds:
        page.figure.legend(
            loc="upper right", bbox_to_anchor=(1, 1), ncols=len(seeds), handletextpad=0.1, columnspacing=0.8,
            borderpad=0, borderaxespad=0.2,
        )  # fmt: skip
    return page.figure
