"""The figure `curves`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import BandPoint, CurvesData, CurvesRow
from metaformer_ablate.analysis.figures.style import LINE_HEIGHT, Page, ending_remark, row_styles, seeds_remark, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_curves(data: CurvesData) -> Figure:
    """A panel a row, the baseline's mean in each."""
    rows, styles = data.rows, row_styles(data)
    baseline = data.baseline_row
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    titles = {row.name: _panel_title(row, 27 if columns == 4 else 36) for row in rows}
    most = max(title.count("\n") for title in titles.values()) + 1
    several = any(len(row.seeds.get("ok", [])) > 1 for row in rows)
    diverged = any("diverged" in row.seeds for row in rows)
    caption = [
        f"{data.axis} after each epoch: mean over seeds" + ("; band: lowest to highest." if several else "."),
        "Grey: the baseline." if len(rows) > 1 else "",
        "Dashed: runs that diverged, up to their last whole epoch." if diverged else "",
        seeds_remark(data),
    ]
    page = Page(data, lines * ((1.6 if lines == 1 else 1.15) + LINE_HEIGHT * most) + 0.3, caption)
    panels = page.figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, row in zip(panels, rows, strict=False):
        axes.set_title(titles[row.name], size=6.8, linespacing=1.05, pad=3)
        axes.grid(axis="y")
        if row is not baseline:
            _line(axes, baseline.band, color="#9a9a9a", linewidth=0.9)
        style = styles[row.name]
        if row.band:
            epochs = [point.epoch for point in row.band]
            low, high = ([getattr(point, end) for point in row.band] for end in ("low", "high"))
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.25, linewidth=0)
            _line(axes, row.band, color=style["color"])
        for run in row.runs:
            if run.status == "diverged":
                axes.plot(run.epochs, run.values, color=style["color"], linewidth=0.8, linestyle=(0, (3, 1.5)))
                axes.plot(run.epochs[-1:], run.values[-1:], color=style["color"], marker="x", markersize=4)
    for i, axes in enumerate(panels):
        axes.set_visible(i < len(rows))
        # Below the last panel of a column that is one short, the axis would be without numbers.
        if last := i + columns >= len(rows):
            axes.set_xlabel("Epoch")
        axes.tick_params(labelbottom=last)
        if i % columns == 0:
            axes.set_ylabel(data.axis)
        axes.locator_params(axis="x", integer=True, nbins=5)
    return page.figure


def _panel_title(row: CurvesRow, width: int) -> str:
    ending = ending_remark(row)
    return wrapped(row.label, width) + (f"\n({ending})" if ending else "")


def _line(axes: Any, band: Sequence[BandPoint], **style: Any) -> None:
    dot = {"marker": "o", "markersize": 2.5} if len(band) == 1 else {}
    axes.plot([point.epoch for point in band], [point.mean for point in band], **style, **dot)
