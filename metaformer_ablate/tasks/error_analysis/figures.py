"""Pieces of the figures of all error analyses. Draws given numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.drawing.canvas import COLOURS, GREY
from metaformer_ablate.drawing.pages import FEW_CLASSES, new_figure
from metaformer_ablate.tasks.error_analysis.runs import briefly, called

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

FIRST, SECOND = COLOURS[:2]
MOST_CLASSES = 100  # more are not drawn, a line each: errors.json has them all


def where(summary: Mapping[str, Any]) -> str:
    return f"{summary['dataset']} ({summary['split']})"


def about_run(summary: Mapping[str, Any]) -> str:
    return f"{called(summary)}, {where(summary)}"


def class_lines(number: int, height: float, each: float = 0.24) -> tuple[Figure, Axes]:
    """A figure with a line for each of so many classes; `height` is that of what is around."""
    figure, axes = new_figure(6.4 if each < 0.25 else 6.8, height + (each if number <= FEW_CLASSES else 0.12) * number)
    return figure, axes[0, 0]


def name_lines(ax: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Names the lines of classes that are drawn, the first one above."""
    ax.set_yticks(range(len(lines)), [c["name"] for c in lines], fontsize=8 if len(lines) <= FEW_CLASSES else 5)
    ax.set_ylim(len(lines) - 0.4, -0.6)


def of_how_many(lines: Sequence[Any], number: int) -> str:
    """What an axis says where only the worst of so many classes are shown."""
    return f"; the worst {len(lines)} of {number} classes" if number > len(lines) else ""


def matrix(
    summary: Mapping[str, Any],
    shares: NDArray[Any],
    names: tuple[Sequence[str], Sequence[str]],
    labels: tuple[str, str, str],
    most: float = 100.0,
) -> tuple[Figure, Axes]:
    """A confusion matrix by its shares [rows, columns] in percent, what is NaN in grey, with the names of columns and
    rows where they can be read; `labels` are of the columns, the rows and the colours."""
    import matplotlib

    rows, few = len(summary["classes"]), len(summary["classes"]) <= FEW_CLASSES
    around = 2.6 + 0.4 * (len(shares) - rows)
    side = around + 0.45 * rows if few else min(around + 0.11 * rows, 14)
    figure, axes = new_figure(side + 0.8, side)
    ax = axes[0, 0]
    blues = matplotlib.colormaps["Blues"].with_extremes(bad="#DDDDDD")
    shown = ax.imshow(shares, cmap=blues, vmin=0, vmax=most)
    if rows <= 200:
        size = 8 if few else 4.5
        ax.set_xticks(range(len(names[0])), names[0], rotation=90, fontsize=size)
        ax.set_yticks(range(len(names[1])), names[1], fontsize=size)
    ax.set(xlabel=labels[0], ylabel=labels[1], title=f"Confusion, {about_run(summary)}")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    figure.colorbar(shown, ax=ax, shrink=0.6, label=labels[2]).outline.set_visible(False)
    return figure, ax


def write_cell(ax: Axes, row: int, column: int, text: str, white: bool) -> None:
    colour = "white" if white else "black"
    ax.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


def two_of_each_class(summary: Mapping[str, Any], label: str) -> Figure:
    """A metric of each class in both runs, joined by a line."""
    against = summary["against"]
    lines = [c for c in against["classes"] if c["first"] is not None and c["second"] is not None]
    lines = sorted(lines, key=lambda c: (c["first"] - c["second"], c["class"]))[:MOST_CLASSES]
    figure, ax = class_lines(len(lines), 1.5, 0.26)
    for y, line in enumerate(lines):
        ax.plot([line["first"], line["second"]], [y, y], color=GREY, linewidth=0.8)
    for key, colour, marker in (("first", FIRST, "o"), ("second", SECOND, "s")):
        name = briefly(against[key])
        ax.plot([c[key] for c in lines], range(len(lines)), marker, color=colour, markersize=4, label=name)
    name_lines(ax, lines)
    ax.set_xlabel(label)
    figure.legend(loc="outside upper left", ncols=1)
    return figure


def picture(ax: Axes, image: NDArray[Any], caption: str) -> None:
    """An image uint8, [H, W] or [H, W, 3], without axes."""
    ax.imshow(image, cmap="gray" if image.ndim == 2 else None, vmin=0, vmax=255)
    ax.set_title(caption, fontsize=6.5, loc="center", pad=2)
    ax.set_axis_off()
