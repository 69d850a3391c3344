"""Figures of what summary.py found and of label maps beside the truth. Draws what it is given."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.drawing.canvas import GREY
from metaformer_ablate.drawing.pages import FEW_CLASSES, image_grid, styled
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
from metaformer_ablate.tasks.segmentation.metrics import share_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


NOTHING = (40, 40, 40)  # the colour of pixels that count for nothing


GOLDEN = 0.61803398875  # of the circle of hues: classes that follow each other are far apart


def figures(summary: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that the summary alone is enough for, by name: confusion and classes."""
    return {"confusion": confusion(summary), "classes": classes(summary)}


@styled
def confusion(summary: Mapping[str, Any]) -> Figure:
    """Share of each class's pixels that is taken for each class, in the cells too where there are few."""
    pixels = np.array(summary["confusion"])
    number = len(pixels)
    shares = share_of(pixels, pixels.sum(axis=1, keepdims=True).repeat(number, axis=1))
    names = [c["name"] for c in summary["classes"]]
    figure, ax = matrix(summary, shares, (names, names), ("Predicted class", "True class", "Share of the class (%)"))
    for (i, j), share in np.ndenumerate(shares) if number <= FEW_CLASSES else ():
        if share >= 0.5:
            write_cell(ax, i, j, f"{share:.0f}", bool(share > 60))
    return figure


@styled
def classes(summary: Mapping[str, Any]) -> Figure:
    """IoU of each class, the worst first; the line is the mIoU."""
    lines = sorted((c for c in summary["classes"] if c["iou"] is not None), key=lambda c: (c["iou"], c["class"]))
    number = len(lines)
    lines = lines[:MOST_CLASSES]
    figure, ax = class_lines(len(lines), 1.1)
    ax.axvline(summary["miou"], color=GREY, linewidth=0.8)
    ax.barh(range(len(lines)), [c["iou"] for c in lines], color=FIRST, height=0.7)
    name_lines(ax, lines)
    ax.set(xlabel=f"IoU per class (%); line: mIoU{of_how_many(lines, number)}", title=about_run(summary))
    return figure


@styled
def against_classes(summary: Mapping[str, Any]) -> Figure:
    """IoU of each class in both runs."""
    return two_of_each_class(summary, "IoU (%)")


@dataclass(frozen=True)
class Shown:
    """An image uint8 [H, W, 3], its mask and what was predicted, uint8 [H, W], under a caption."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    caption: str


@styled
def masks(summary: Mapping[str, Any], shown: Sequence[Shown], ignore: int) -> Figure:
    """A line of four pictures per image: the image, its mask, the prediction, and where that is wrong."""
    aspects = [picture.mask.shape[0] / picture.mask.shape[1] for picture in shown]
    number = len(summary["classes"])
    height = 1.8 * min(max(float(np.median(aspects)), 0.4), 2.5) + 0.32
    figure, axes = image_grid(1.8, height, len(shown), 4)
    palette = colours(number)
    for row, picture in zip(axes, shown, strict=True):
        counts = picture.mask != ignore
        wrong = counts & (picture.mask != picture.predicted)
        marked = picture.image // 3
        marked[wrong] = (255, 60, 0)
        panels = (
            (picture.image, picture.caption),
            (_coloured(picture.mask, counts, palette), "truth"),
            (_coloured(picture.predicted, counts, palette), "predicted"),
            (marked, f"wrong: {100 * wrong.sum() / max(counts.sum(), 1):.0f}% of the pixels"),
        )
        for ax, (pixels, caption) in zip(row, panels, strict=True):
            draw_picture(ax, pixels, caption)
    title = f"The {len(shown)} worst images by their mean IoU; dark: ignored\n{about_run(summary)}"
    figure.suptitle(title, x=0.01, ha="left")
    if number <= FEW_CLASSES:
        _legend(figure, [c["name"] for c in summary["classes"]], palette)
    return figure


def _legend(figure: Figure, names: Sequence[str], palette: NDArray[np.uint8]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=tuple(colour / 255), label=name) for name, colour in zip(names, palette, strict=True)]
    figure.legend(handles=handles, loc="upper right", ncols=6, fontsize=5.5, borderaxespad=0.1)


def colours(number: int) -> NDArray[np.uint8]:
    """[number, 3]: a colour per class, the same for the same number."""
    found = [
        colorsys.hsv_to_rgb(i * GOLDEN % 1, 0.85 if i % 2 else 0.55, 0.95 if i % 3 else 0.7) for i in range(number)
    ]
    return (255 * np.array(found)).astype(np.uint8)


def _coloured(labels: NDArray[np.uint8], counts: NDArray[np.bool_], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = np.full((*labels.shape, 3), NOTHING, dtype=np.uint8)
    found[counts] = palette[labels[counts]]
    return found
