"""The slope chart of a comparison: the rank of each row under each recipe, joined by lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import FigureData
from metaformer_ablate.analysis.figures.style import LINE_HEIGHT, Page, plain_label, row_styles, wrapped
from metaformer_ablate.analysis.tables.comparison import Comparison
from metaformer_ablate.drawing.canvas import GREY, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class SlopeRow:
    """A row of the slope chart: its rank under each recipe."""

    name: str
    label: str
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
            rows.append(SlopeRow(name=row.name, label=row.label, group=row.group, ranks=tuple(ranks)))
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


def draw_slopes(data: SlopeData) -> Figure:
    """Rows by rank, the best at the top; lines that cross are pairs of rows that the recipes order differently."""
    styles, rows = row_styles(data), data.rows
    best = "highest" if data.metric.higher_is_better else "lowest"
    caption = [
        f"Rank of each row's mean {data.metric.phrase}, 1 for the {best}; rows of the same value share a rank.",
        "Black: the baseline. Crossing lines: rows that the recipes order differently.",
        f"Without a number under every recipe, so not drawn: {', '.join(data.left_out)}." if data.left_out else "",
    ]
    with styled():
        page = Page(data, 0.7 + LINE_HEIGHT * 1.5 * len(rows), caption)
        axes = page.figure.subplots()
        last = len(data.recipes) - 1
        for x in range(last + 1):
            axes.axvline(x, color=GREY, linewidth=0.5, zorder=1)
        for row in rows:
            on_top = 4 if row.name == data.baseline else 3
            axes.plot(range(last + 1), row.ranks, **styles[row.name], zorder=on_top, clip_on=False)
        for end, align, shift in ((0, "right", -8), (last, "left", 8)):
            for place, row in enumerate(sorted(rows, key=lambda row: row.ranks[end]), 1):
                axes.annotate(
                    plain_label(row.label if end == 0 else row.name),
                    (end, place),
                    (shift, 0),
                    textcoords="offset points",
                    ha=align,
                    va="center_baseline",
                    size=6.5,
                    color=styles[row.name]["color"],
                )
        axes.set_ylim(max(len(rows), 1) + 0.5, 0.5)
        axes.set_xticks(range(last + 1), [wrapped(recipe.replace(":", ": "), 20) for recipe in data.recipes])
        axes.set_yticks([])
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        axes.xaxis.tick_top()
        axes.tick_params(axis="x", length=0)
    return page.figure
