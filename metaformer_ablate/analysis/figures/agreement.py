"""The agreement of each recipe of a comparison with the paper: rank correlation and clear pairs, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.figures.data import FigureData, FigureRow
from metaformer_ablate.analysis.figures.look import PAGE, Look
from metaformer_ablate.analysis.figures.page import Page, foot_of_axis
from metaformer_ablate.analysis.figures.rows import BETWEEN, RowAxis, draw_point
from metaformer_ablate.analysis.figures.scale import Scale
from metaformer_ablate.analysis.tables.comparison import PAPER, Comparison, spaced, with_paper
from metaformer_ablate.analysis.tables.types import Interval, plain
from metaformer_ablate.drawing.canvas import COLOURS, GREY, styled
from metaformer_ablate.drawing.text import line_height, text_width
from metaformer_ablate.errors import RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Point:
    """A figure of agreement and its 95% interval, None where it has none."""

    value: float
    ci95: Interval | None


@dataclass(frozen=True, kw_only=True)
class AgreementRow(FigureRow):
    """A recipe: tau-b from -1 to 1 and the share of clear pairs in percent, None where there is none.

    `rows` is how many it has in common with the paper, `n` how many seeds all of them have. `by_seed` is the mean over
    the seeds, each alone, with a t interval.
    """

    rows: int
    kendall: Point
    kendall_by_seed: Point | None
    clear_pairs: Point | None
    clear_pairs_by_seed: Point | None


@dataclass(frozen=True, kw_only=True)
class AgreementData(FigureData):
    """The numbers of a figure of agreement; a recipe with too few rows for one is in `left_out`."""

    rows: Sequence[AgreementRow]
    apart: float  # points in the paper from which a pair is clear
    left_out: tuple[str, ...]
    compared: int  # rows of the experiment
    not_chosen: tuple[str, ...]

    def own(self) -> dict[str, Any]:
        return {name: plain(getattr(self, name)) for name in ("apart", "left_out", "compared", "not_chosen")}


def agreement_data(comparison: Comparison) -> AgreementData:
    """The agreements of a comparison with the paper. Raises RequestError where it is no recipe, or agrees with none."""
    if PAPER not in comparison.recipes:
        raise RequestError(f"--kind agreement: give {PAPER!r} as one of the recipes")
    others = [recipe for recipe in comparison.recipes if recipe != PAPER]
    found = with_paper(comparison.agreements)
    known = [recipe for recipe, each in found.items() if each["kendall"]["value"] is not None]
    there = {recipe: found[recipe] for recipe in others if recipe in known}
    if not there:
        raise RequestError(f"--kind agreement: no recipe has three rows in common with {PAPER!r} that are not all tied")
    return AgreementData(
        kind="agreement",
        experiment=comparison.experiment,
        recipe=" and ".join(others),
        overrides=(),
        baseline=comparison.baseline,
        task=comparison.task,
        metric=comparison.metric,
        rows=[_row(recipe, each, _seeds(comparison, recipe, each["rows"])) for recipe, each in there.items()],
        apart=next((each["clear_pairs"]["apart"] for each in there.values()), 0.0),
        left_out=tuple(recipe for recipe in others if recipe not in there),
        compared=len(comparison.rows),
        not_chosen=comparison.not_chosen,
    )


def _seeds(comparison: Comparison, recipe: str, names: Sequence[str]) -> list[int]:
    """The seeds that these rows all have under a recipe."""
    i = comparison.recipes.index(recipe)
    return sorted(set.intersection(*(set(row.results[i].row.values()) for row in comparison.rows if row.name in names)))


def _row(recipe: str, found: Mapping[str, Any], seeds: list[int]) -> AgreementRow:
    clear, by_seed = found["clear_pairs"], found["by_seed"]
    label = spaced(recipe)
    return AgreementRow(
        name=recipe,
        label=label,
        short=label,
        group="",
        n=len(seeds),
        seeds={"ok": seeds},
        at_chance=[],
        rows=len(found["rows"]),
        kendall=_point(found["kendall"]),
        kendall_by_seed=_point(by_seed["kendall"]) if by_seed else None,
        clear_pairs=Point(value=100 * clear["in_order"] / clear["pairs"], ci95=None) if clear["pairs"] else None,
        clear_pairs_by_seed=_point(by_seed["clear_pairs"], 100) if by_seed else None,
    )


def _point(found: Mapping[str, Any], times: float = 1) -> Point:
    ci95 = found["ci95"]
    return Point(value=times * found["value"], ci95=ci95 and (times * ci95[0], times * ci95[1]))


def agreement_caption(data: AgreementData) -> list[str]:
    everything = data.compared + len(data.not_chosen)
    return [
        f"Over {data.compared} of {everything} rows, as asked for." if data.not_chosen else "",
        "Left: Kendall's tau-b with the paper's order of rows. Right: share of the pairs of rows "
        f"{data.apart:g} point or more apart in the paper that are in its order. Circles: of the rows' means, with the "
        "95% interval by Fisher z, as if these rows were drawn from many. Squares: the mean over the seeds, each "
        "alone, with its 95% t interval. Hollow: no interval. Grey: what chance gives.",
        f"No agreement, so not drawn: {', '.join(data.left_out)}." if data.left_out else "",
    ]


def draw_agreement(data: AgreementData, look: Look = PAGE) -> Figure:
    """A line per recipe: at the left tau-b, at the right the share of clear pairs."""
    line = line_height(look.size)
    with styled(look.size):
        rows = RowAxis(data, look, [("Rows", {row.name: str(row.rows) for row in data.rows})])
        bottom, legend = foot_of_axis(look, 1), line * 1.6
        page = Page(data, look, bottom + rows.height + rows.top + legend, agreement_caption(data))
        rows.draw(page, bottom)
        width = (page.width - rows.left - rows.right - 0.12 - BETWEEN * 1.5) / 2
        panels = [
            ("Kendall's tau-b with the paper", 0.0, 1.0, "kendall"),
            ("Clear pairs in the paper's order (%)", 50.0, 100.0, "clear_pairs"),
        ]
        for i, (heading, chance, most, name) in enumerate(panels):
            both = [(f"{name}", "o", COLOURS[0], -0.2), (f"{name}_by_seed", "s", COLOURS[1], 0.2)]
            points = [getattr(row, key) for row in data.rows for key, *_ in both if getattr(row, key)]
            lowest = min([chance, *(end for point in points for end in (point.value, *(point.ci95 or ())))])
            left = rows.left + i * (width + BETWEEN * 1.5)
            axes = rows.panel(page, left, bottom, width, Scale.all_of([lowest, most]))
            axes.set_xlabel(heading)
            axes.axvline(chance, color=GREY, linewidth=0.8, zorder=1)
            for row in data.rows:
                for key, marker, colour, shift in both:
                    if point := getattr(row, key):
                        style = {"color": colour, "marker": marker}
                        draw_point(axes, point.value, point.ci95, rows.places[row.name] + shift * line, style)
        _legend(page, rows.left, bottom + rows.height + rows.top + 0.04, look)
        page.figure.draw_without_rendering()
    return page.figure


def _legend(page: Page, left: float, y: float, look: Look) -> None:
    """What circles and squares are, above the panels."""
    axes = page.axes(left, y, 1.0, line_height(look.size))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    x = 0.05
    for words, marker, colour in (("means of all seeds", "o", COLOURS[0]), ("each seed alone", "s", COLOURS[1])):
        axes.plot(x, 0.5, marker=marker, color=colour, clip_on=False)
        page.text(left + x + 0.08, y + line_height(look.size) / 2, words, va="center")
        x += text_width(words, look.size) + 0.3
