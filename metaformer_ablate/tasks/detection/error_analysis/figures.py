"""Figures of what summary.py found, and pictures with boxes beside the truth. Draws what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.drawing.canvas import COLOURS, GREY
from metaformer_ablate.drawing.pages import FEW_CLASSES, image_grid, new_figure, styled
from metaformer_ablate.tasks.error_analysis.figures import (
    FIRST,
    MOST_CLASSES,
    about_run,
    class_lines,
    matrix,
    name_lines,
    of_how_many,
    two_of_each_class,
    write_cell,
)
from metaformer_ablate.tasks.error_analysis.figures import picture as draw_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

ORANGE, GREEN, SKY = COLOURS[1], COLOURS[2], COLOURS[5]
COLUMNS = 4  # of the sheet of pictures


def figures(summary: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that the summary alone is enough for, by name: kinds, confusion, classes and sizes."""
    return {
        "kinds": kinds(summary),
        "confusion": confusion(summary),
        "classes": classes(summary),
        "sizes": sizes(summary),
    }


@styled
def kinds(summary: Mapping[str, Any]) -> Figure:
    """How many mistakes there are of each kind."""
    lines = summary["kinds"]
    figure, axes = new_figure(6.4, 2.6)
    ax = axes[0, 0]
    colours = [GREY if line is lines[-1] else ORANGE for line in lines]
    ax.barh(range(len(lines)), [line["count"] for line in lines], color=colours, height=0.7)
    ax.set_yticks(range(len(lines)), [line["kind"] for line in lines])
    ax.set_ylim(len(lines) - 0.4, -0.6)
    found = f"{summary['found']:,} of {summary['truths']:,} objects found"
    ax.set(xlabel=f"Mistakes at scores of at least {summary['score']:.2f}; {found}", title=about_run(summary))
    return figure


@styled
def confusion(summary: Mapping[str, Any]) -> Figure:
    """Share of each class's things that is taken for each class or missed; below, detections where nothing is."""
    counts = np.array(summary["confusion"], dtype=float)
    names = [c["name"] for c in summary["classes"]]
    number = len(names)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares[-1] = np.nan
    labels = "Predicted class (counts)", "True class", "Share of the class (%)"
    figure, ax = matrix(summary, shares, ([*names, "missed"], [*names, "nothing there"]), labels)
    for (i, j), count in np.ndenumerate(counts) if number <= FEW_CLASSES else ():
        if count:
            write_cell(ax, i, j, f"{count:.0f}", i < number and shares[i, j] > 60)
    return figure


@styled
def classes(summary: Mapping[str, Any]) -> Figure:
    """AP and AP50 of each class, the worst first; the line is the AP of all."""
    lines = [c for c in summary["classes"] if c["box_ap"] is not None]
    number = len(lines)
    lines = sorted(lines, key=lambda c: (c["box_ap"], c["class"]))[:MOST_CLASSES]
    figure, ax = class_lines(len(lines), 1.4)
    ax.axvline(summary["metrics"]["box_ap"], color=GREY, linewidth=0.8)
    rows = range(len(lines))
    ax.barh(rows, [c["box_ap50"] for c in lines], color=SKY, height=0.7, label="AP50")
    ax.barh(rows, [c["box_ap"] for c in lines], color=FIRST, height=0.7, label="AP")
    name_lines(ax, lines)
    of = of_how_many(lines, number)
    ax.set(xlim=(0, 100), xlabel=f"Box AP per class (%); line: AP of all classes{of}", title=about_run(summary))
    figure.legend(loc="outside lower right", ncols=2)
    return figure


@styled
def sizes(summary: Mapping[str, Any]) -> Figure:
    """AP and recall of small, medium and large things, and how large their boxes are drawn."""
    lines = summary["sizes"]
    figure, axes = new_figure(6.8, 2.8, columns=2, width_ratios=[3, 2])
    left, right = axes[0]
    for shift, key, label, colour in ((-0.2, "box_ap", "box AP", FIRST), (0.2, "recall", "found", SKY)):
        values = [line[key] or 0 for line in lines]
        left.bar([i + shift for i in range(len(lines))], values, 0.38, color=colour, label=label)
    left.set_xticks(range(len(lines)), [f"{line['size_name']}\n{line['truths']:,} objects" for line in lines])
    left.set(ylim=(0, 100), ylabel="%", title=about_run(summary))
    left.legend(loc="upper right")
    right.axhline(100, color=GREY, linewidth=0.8)
    drawn = [(i, line["size"]) for i, line in enumerate(lines) if line["size"] is not None]
    right.plot([i for i, _ in drawn], [size for _, size in drawn], "o", color=FIRST)
    right.set_xticks(range(len(lines)), [f"{line['size_name']}\n{line['drawn']:,} boxes" for line in lines])
    right.set(xlim=(-0.6, len(lines) - 0.4), ylabel="Side of predicted boxes (% of the true side)")
    return figure


@styled
def against_classes(summary: Mapping[str, Any]) -> Figure:
    """AP of each class in both runs."""
    return two_of_each_class(summary, "box AP (%)")


@dataclass(frozen=True)
class Thing:
    """A box (left, top, right, bottom) with a word; `mask` [H, W] where there is one."""

    box: Sequence[float]
    text: str
    state: str  # right, wrong or missed
    mask: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Shown:
    """An image uint8 [H, W, 3] with what was found in it and what was missed, under a caption."""

    image: NDArray[np.uint8]
    things: Sequence[Thing]
    caption: str


STYLES: dict[str, dict[str, Any]] = {
    "right": {"edgecolor": GREEN, "linestyle": "-"},
    "wrong": {"edgecolor": ORANGE, "linestyle": "-"},
    "missed": {"edgecolor": SKY, "linestyle": (0, (2, 1.5))},
}


@styled
def pictures(summary: Mapping[str, Any], shown: Sequence[Shown]) -> Figure:
    """Each image twice: as it is, and with boxes that are right, wrong and missed."""
    aspects = [picture.image.shape[0] / picture.image.shape[1] for picture in shown]
    height = 1.9 * min(max(float(np.median(aspects)), 0.4), 2.5) + 0.32
    rows = -(-len(shown) * 2 // COLUMNS)
    figure, axes = image_grid(1.9, height, rows, COLUMNS)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, picture in enumerate(shown):
        plain, marked = axes.flat[2 * i], axes.flat[2 * i + 1]
        draw_picture(plain, picture.image, picture.caption)
        draw_picture(marked, _with_masks(picture), "")
        for thing in picture.things:
            _draw(marked, thing)
    title = (
        f"The {len(shown)} worst images by F1: green right, orange wrong, blue missed; scores of at least "
        f"{summary['score']:.2f}\n{about_run(summary)}"
    )
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _with_masks(picture: Shown) -> NDArray[np.uint8]:
    """The image with the masks of its things laid over it in the colours of their boxes."""
    import matplotlib.colors

    pixels = picture.image.astype(np.float64)
    for thing in picture.things:
        if thing.mask is not None:
            colour = 255 * np.array(matplotlib.colors.to_rgb(STYLES[thing.state]["edgecolor"]))
            pixels[thing.mask > 0] = 0.55 * pixels[thing.mask > 0] + 0.45 * colour
    return pixels.astype(np.uint8)


def _draw(ax: Axes, thing: Thing) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = thing.box
    # Pixel x of an image reaches from x - 1/2 to x + 1/2 on its axes.
    corner = left - 0.5, top - 0.5
    ax.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, linewidth=0.9, **STYLES[thing.state]))
    colour = STYLES[thing.state]["edgecolor"]
    where = {"right": (top - 0.5, "bottom"), "wrong": (top - 0.5, "bottom"), "missed": (bottom - 0.5, "top")}
    y, side = where[thing.state]
    text = ax.text(left - 0.5, y, thing.text, fontsize=4.5, color="white", va=side, clip_on=True)
    text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 0.4})
