"""The figure `seeds`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import SeedsData
from metaformer_ablate.analysis.figures.rows import draw_remarks, row_axis, set_row_axis
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.figures.style import MARKERS, Page, seeds_remark
from metaformer_ablate.drawing.canvas import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_seeds(data: SeedsData) -> Figure:
    rows = data.rows
    places, labels, height = row_axis(data)
    seeds = sorted({seed for row in rows for seed in row.runs})
    scale = Scale.of(data.metric, [value for row in rows for value in row.runs.values()])
    off = any(value not in scale for row in rows for value in row.runs.values())
    caption = [
        f"Every run: {data.metric.phrase} at the last epoch. Lines join runs of the same seed, which sees the same "
        "images in the same order. Vertical tick: the row's mean.",
        seeds_remark(data),
        "At the edge: off the scale, with the row's mean beside it." if off else "",
    ]
    page = Page(data, height + (0.9 if seeds else 0.6), caption)
    axes = page.figure.subplots()
    set_row_axis(axes, labels, height)
    axes.set_xlim(scale.low, scale.high)
    axes.set_xlabel(data.metric.heading)
    few = len(seeds) <= len(COLOURS)
    for i, seed in enumerate(seeds):
        # A little above and below each other, so that equal runs are both seen.
        shift = 0.07 * (2 * i / (len(seeds) - 1) - 1) if len(seeds) > 1 else 0.0
        style: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[i]} if few else {"color": GREY, "marker": "o"}
        path: list[tuple[float, float]] = []
        for row in rows:
            value = row.runs.get(seed)
            if value is None or value not in scale:
                path.append((float("nan"), places[row.name]))
                if value is not None:
                    edge, marker = (scale.low, "<") if value < scale.low else (scale.high, ">")
                    axes.plot(edge, places[row.name] + shift, **{**style, "marker": marker}, clip_on=False)
                continue
            path.append((value, places[row.name] + shift))
        xs, ys = [x for x, _ in path], [y for _, y in path]
        axes.plot(xs, ys, color=style["color"], linewidth=0.6, alpha=0.45)
        label = f"seed {seed}" if few else f"{len(seeds)} seeds" if not i else None
        axes.plot(xs, ys, linestyle="none", label=label, clip_on=False, markersize=4, **style)
    for row in rows:
        y = places[row.name]
        if row.mean is not None and row.mean in scale:
            axes.plot([row.mean] * 2, [y - 0.1, y + 0.1], color="black", linewidth=1.3)
        elif row.mean is not None:
            left = row.mean < scale.low
            axes.annotate(
                f"{row.mean:.{data.metric.digits}f}", (scale.low if left else scale.high, y), (6 if left else -6, 0),
                size=7, textcoords="offset points", ha="left" if left else "right", va="center_baseline",
            )  # fmt: skip
    if seeds:
        page.figure.legend(loc="outside upper center", ncols=min(len(seeds), 8), handletextpad=0.3, columnspacing=1.2)
    draw_remarks(axes, data, places)
    return page.figure
