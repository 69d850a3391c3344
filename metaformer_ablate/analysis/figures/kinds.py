"""Figures of an experiment from its records.

`figure_data` gives exactly the numbers of a figure of a table; `draw` makes the figure of them and of nothing else.
matplotlib is loaded by `draw` alone.

What has no number is said in every figure: rows that are missing, diverged, failed, at chance or of one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.agreement import agreement_data, draw_agreement
from metaformer_ablate.analysis.figures.curves import curves_caption, draw_curves
from metaformer_ablate.analysis.figures.data import (
    FigureData,
    cost_data,
    costs,
    curves,
    curves_data,
    paper_data,
    rows_data,
    seeds_data,
)
from metaformer_ablate.analysis.figures.look import PAGE, Look
from metaformer_ablate.analysis.figures.rows import draw_nothing, draw_rows, has_numbers, rows_caption
from metaformer_ablate.analysis.figures.scatter import cost_caption, draw_cost, draw_paper, paper_caption
from metaformer_ablate.analysis.figures.seeds import draw_seeds, seeds_caption
from metaformer_ablate.analysis.figures.slope import draw_slopes, slope_data
from metaformer_ablate.analysis.tables.comparison import Comparison
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Table
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.drawing.canvas import styled
from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.tasks.base import Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_data(kind: str, table: Table, **options: str) -> FigureData:
    """Exactly the numbers of a figure of a table; its `to_json` gives them as plain values.

    Args:
        kind: one of KINDS.
        options: `x`, one of COSTS, for cost; `y`, a column of a history, for curves.

    Raises RequestError for an unknown kind or option.
    """
    if kind not in KINDS:
        raise RequestError(unknown("kind of figure", kind, KINDS))
    chosen = KINDS[kind]
    for name in options:
        if name not in chosen.options:
            raise RequestError(f"a figure of kind {kind!r} has no option {name!r}")
    values = {}
    for name, allowed in chosen.options.items():
        quantities = allowed(table)
        values[name] = options.get(name, next(iter(quantities)))
        if values[name] not in quantities:
            raise RequestError(f"--{name}: {unknown('quantity', values[name], quantities)}")
    return chosen.data(table, **values)


def applicable(kinds: Sequence[str] | None, table: Table) -> list[str]:
    """The kinds, by default all, for a table; without `paper` where there are no numbers of a paper to compare with.

    Raises RequestError where that kind was asked for.
    """
    chosen = list(KINDS if kinds is None else kinds)
    others = (row.printed for row in table.rows if row.name != table.baseline)
    if "paper" not in chosen or (table.baseline_row.printed and any(printed is not None for printed in others)):
        return chosen
    chosen.remove("paper")
    if kinds is not None:
        why = f"{table.experiment} has no {table.metric.label} of a paper for its baseline and another row"
        raise RequestError(f"--kind paper: {why}; allowed: {', '.join(one for one in KINDS if one != 'paper')}")
    return chosen


def draw(data: FigureData, look: Look = PAGE) -> Figure:
    """The figure of what `figure_data` gave, of the size and with the words of a look."""
    with styled(look.size):
        drawn = KINDS[data.kind].draw(data, look) if has_numbers(data) else draw_nothing(data, look)
        drawn.draw_without_rendering()  # ticks are made when they are first drawn, of the size that then holds
    return drawn


def caption(data: FigureData, look: Look = PAGE) -> str:
    """What a figure shows, in sentences: the caption for a paper."""
    return " ".join(filter(None, KINDS[data.kind].caption(data, look)))


def figure(
    kind: str,
    plan: Plan,
    store: Store,
    folder: DataFolder,
    seeds: Sequence[int] | None = None,
    metric: str | None = None,
    look: Look = PAGE,
    **options: str,
) -> Figure:
    """A figure of a plan from its records alone. `seeds` are by default all that have a record."""
    table = build_table(plan, store, folder, seeds, metric=metric, spread=False)
    return draw(figure_data(kind, table, **options), look)


def draw_comparison(comparison: Comparison, kind: str) -> Figure:
    """A figure of a comparison: `slope`, the ranks, or `agreement` with the paper. Raises RequestError for another."""
    if kind == "slope":
        return draw_slopes(slope_data(comparison))
    if kind == "agreement":
        return draw_agreement(agreement_data(comparison))
    raise RequestError(f"--kind: {unknown('kind of figure', kind, ('slope', 'agreement'))}")


@dataclass(frozen=True)
class Kind:
    """A kind of figure: what it shows of a metric, its parts, and its options with their values.

    The values of an option are {name: what the axis is called}; the first is the default.
    """

    description: str
    data: Callable[..., FigureData]
    draw: Callable[[Any, Look], Figure]
    caption: Callable[[Any, Look], list[str]]
    options: dict[str, Callable[[Table], dict[str, str]]] = field(default_factory=dict)

    def describe(self, metric: Metric) -> str:
        return self.description.format(metric=metric.phrase)


KINDS: dict[str, Kind] = {
    "rows": Kind(
        "mean {metric} and the difference from the baseline, with intervals", rows_data, draw_rows, rows_caption
    ),
    "curves": Kind(
        "every row's course of training, with the band over seeds",
        curves_data,
        draw_curves,
        curves_caption,
        {"y": curves},
    ),
    "cost": Kind("{metric} against MACs, parameters or speed", cost_data, draw_cost, cost_caption, {"x": costs}),
    "paper": Kind("differences from the baseline: ours against the paper's", paper_data, draw_paper, paper_caption),
    "seeds": Kind("every run as a point", seeds_data, draw_seeds, seeds_caption),
}
