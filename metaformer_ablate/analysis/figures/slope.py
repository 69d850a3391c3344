"""The slope chart of a comparison: the rank of each row under each recipe, joined by lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import FigureData
from metaformer_ablate.analysis.figures.look import PAGE, Look
from metaformer_ablate.analysis.figures.page import Page, plain_label, widest
from metaformer_ablate.analysis.figures.style import row_styles
from metaformer_ablate.analysis.tables.comparison import Comparison, spaced
from metaformer_ablate.drawing.canvas import GREY, styled
from metaformer_ablate.drawing.text import line_height, text_height, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class SlopeRow:
    """A row of the slope chart: its rank under each recipe."""

    name: str
    label: str
    short: str  # the label where room is scarce
    group: str
    ranks: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class SlopeData(FigureData):
    """The numbers of a slope chart; rows without a rank are in `left_out`."""

    recipes: tuple[str, ...]
    left_out: tuple[str, ...]
    rows: Sequence[SlopeRow]

    def own(self) -> dict[str, Any]:
        return {"recipes": list(self.recipes), "left_out": list(self.left_out)}


def slope_data(comparison: Comparison) -> SlopeData:
    """The ranks of a comparison, without the rows that have none."""
    rows, left_out = [], []
    for row in comparison.rows:
        ranks = [result.rank for result in row.results if result.rank is not None]
        if row.mean_rank is None:
            left_out.append(row.name)
        else:
            rows.append(
                SlopeRow(
                    name=row.name,
                    label=row.label,
                    short=row.short or row.label,
                    group=row.group,
                    ranks=tuple(ranks),
                )
            )
    recipes = comparison.recipes
    return SlopeData(
        kind="slope",
        experiment=comparison.experiment,
        recipe=f"{', '.join(recipes[:-1])} and {recipes[-1]}",
        overrides=(),
        baseline=comparison.baseline,
        task=comparison.task,
        metric=comparison.metric,
        rows=rows,
        recipes=recipes,
        left_out=tuple(left_out),
    )


def slopes_caption(data: SlopeData) -> list[str]:
    best = "highest" if data.metric.higher_is_better else "lowest"
    return [
        f"Rank of each row's mean {data.metric.phrase}, 1 for the {best}; rows of the same value share a rank.",
        "Black: the baseline. Crossing lines: rows that the recipes order differently.",
        f"Without a number under every recipe, so not drawn: {', '.join(data.left_out)}." if data.left_out else "",
    ]


def draw_slopes(data: SlopeData, look: Look = PAGE) -> Figure:
    """Rows by rank, the best at the top; lines that cross are pairs of rows that the recipes order differently."""
    styles, rows, last = row_styles(data), data.rows, len(data.recipes) - 1
    with styled(look.size):
        labels = {row.name: plain_label(row.label if look.full_labels else row.short) for row in rows}
        side = widest(labels, look.size) + 0.16
        width, height = look.width - 2 * side, line_height(look.size) * 1.2 * max(len(rows), 1)
        heads = [wrap(spaced(recipe), max(width / max(last, 1), 0.8), look.size) for recipe in data.recipes]
        page = Page(
            data, look, height + max(text_height(head, look.size) for head in heads) + 0.14, slopes_caption(data)
        )
        axes = page.axes(side, 0.04, width, height)
        for i in range(last + 1):
            axes.axvline(i, color=GREY, linewidth=0.5, zorder=1)
            page.text(side + width * i / max(last, 1), height + 0.08, heads[i], ha="center", va="bottom")
        for row in rows:
            on_top = 4 if row.name == data.baseline else 3
            axes.plot(range(last + 1), row.ranks, **styles[row.name], zorder=on_top, clip_on=False)
        axes.set_xlim(0, max(last, 1))
        axes.set_ylim(max(len(rows), 1) + 0.5, 0.5)
        axes.set_axis_off()
        for end, align, edge in ((0, "right", side - 0.08), (last, "left", side + width + 0.08)):
            for place, row in enumerate(sorted(rows, key=lambda row: row.ranks[end])):
                y = 0.04 + height * (1 - (place + 0.5) / len(rows))
                page.text(edge, y, labels[row.name], ha=align, va="center")
        page.figure.draw_without_rendering()
    return page.figure
