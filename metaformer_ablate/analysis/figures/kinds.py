"""Figures of an experiment from its records.

`figure_data` reads the records and gives exactly the numbers that are drawn, as plain values; `draw` makes the figure
of them and of nothing else. The same records give the same bytes under the same version of matplotlib: no dates, fixed
hash salts, the font that matplotlib brings along, and nobody's matplotlibrc. matplotlib is loaded by `draw` alone.

What has no number is said in every figure: rows that are missing, diverged, failed, at chance or of one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.curves import draw_curves
from metaformer_ablate.analysis.figures.data import (
    COSTS,
    CURVES,
    cost_data,
    curves_data,
    paper_data,
    rows_data,
    seeds_data,
)
from metaformer_ablate.analysis.figures.rows import draw_nothing, draw_rows, has_numbers
from metaformer_ablate.analysis.figures.scatter import draw_cost, draw_paper
from metaformer_ablate.analysis.figures.seeds import draw_seeds
from metaformer_ablate.analysis.figures.style import styled
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure_data(
    kind: str, plan: Plan, store: Store, folder: DataFolder, seeds: Sequence[int] | None = None, **options: str
) -> dict[str, Any]:
    """Exactly the numbers of a figure, as values that JSON can hold. Top-1 in percent, differences in points.

    Args:
        kind: one of KINDS.
        seeds: by default all that have a record.
        options: `x`, one of COSTS, for cost; `y`, one of CURVES, for curves.

    Raises RequestError for an unknown kind or option.
    """
    if kind not in KINDS:
        raise RequestError(unknown("kind of figure", kind, KINDS))
    chosen = KINDS[kind]
    for name, value in options.items():
        if name not in chosen.options:
            raise RequestError(f"a figure of kind {kind!r} has no option {name!r}")
        if value not in chosen.options[name]:
            raise RequestError(f"--{name}: {unknown('quantity', value, chosen.options[name])}")
    table = {**build_table(plan, store, folder, seeds), "baseline": plan.experiment.baseline}
    rows = []
    for row in table["rows"]:
        records = {run["seed"]: store.read(run["run_id"]) for run in row["runs"] if run["status"] != "missing"}
        known = {seed: record for seed, record in records.items() if record is not None}
        rows.append((row, known))
    return {
        "kind": kind,
        "experiment": table["experiment"],
        "recipe": table["recipe"],
        "overrides": list(plan.overrides),
        "baseline": table["baseline"],
        **chosen.data(table, rows, **{**chosen.defaults(), **options}),
    }


def draw(data: dict[str, Any]) -> Figure:
    """The figure of what `figure_data` gave."""
    with styled():
        return KINDS[data["kind"]].draw(data) if has_numbers(data) else draw_nothing(data)


def figure(
    kind: str, plan: Plan, store: Store, folder: DataFolder, seeds: Sequence[int] | None = None, **options: str
) -> Figure:
    """A figure from records alone; `figure_data` says what the arguments are."""
    return draw(figure_data(kind, plan, store, folder, seeds, **options))


@dataclass(frozen=True)
class Kind:
    """A kind of figure: what it shows, its options with their values (the first is the default), its two halves."""

    about: str
    data: Callable[..., dict[str, Any]]
    draw: Callable[[dict[str, Any]], Figure]
    options: dict[str, dict[str, str]]

    def defaults(self) -> dict[str, str]:
        return {name: next(iter(values)) for name, values in self.options.items()}


KINDS: dict[str, Kind] = {
    "rows": Kind("mean top-1 and the difference to the baseline, with intervals", rows_data, draw_rows, {}),
    "curves": Kind("every row's course of training, with the band over seeds", curves_data, draw_curves, {"y": CURVES}),
    "cost": Kind("top-1 against multiply-adds, parameters or speed", cost_data, draw_cost, {"x": COSTS}),
    "paper": Kind("differences to the baseline: ours against the paper's", paper_data, draw_paper, {}),
    "seeds": Kind("every run as a point", seeds_data, draw_seeds, {}),
}
