"""Figures of what summary.py found and of label maps beside the truth. Draws given numbers, computes none."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.drawing.canvas import COLOURS, GREY
from metaformer_ablate.drawing.pages import FEW_CLASSES, image_grid, new_figure, styled
from metaformer_ablate.tasks.segmentation.metrics import share_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


FIRST, SECOND = COLOURS[:2]


MOST_CLASSES = 100  # more are not drawn, a line each: errors.json has them all


NOTHING = (40, 40, 40)  # the colour of pixels that count for nothing


GOLDEN = 0.61803398875  # of the circle of hues: classes that follow each other are far apart


def figures(summary: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that the summary alone is enough for, by name: confusion and classes."""
    return {"confusion": confusion(summary), "classes": classes(summary)}


def about_run(summary: Mapping[str, Any]) -> str:
    return (
        f"run {summary['run_id']}: {summary['model']}, seed {summary['seed']}, {summary['dataset']} "
        f"({summary['split']})"
    )


@styled
def confusion(summary: Mapping[str, Any]) -> Figure:
    """Share of each class's pixels that is taken for each class, in the cells too where there are few."""
    import matplotlib

    pixels = np.array(summary["confusion"])
    number = len(pixels)
    few = number <= FEW_CLASSES
    shares = share_of(pixels, pixels.sum(axis=1, keepdims=True).repeat(number, axis=1))
    side = 2.6 + 0.45 * number if few else min(2.6 + 0.11 * number, 14)
    figure, axes = new_figure(side + 0.8, side)
    ax = axes[0, 0]
    shown = ax.imshow(shares, cmap=matplotlib.colormaps["Blues"].with_extremes(bad="#DDDDDD"), vmin=0, vmax=100)
    for (i, j), share in np.ndenumerate(shares) if few else ():
        if share >= 0.5:
            ax.text(
                j, i, f"{share:.0f}", ha="center", va="center", fontsize=7, color="white" if share > 60 else "black"
            )
    names = [c["name"] for c in summary["classes"]]
    size = 8 if few else 4.5
    ax.set_xticks(range(number), names, rotation=90, fontsize=size)
    ax.set_yticks(range(number), names, fontsize=size)
    ax.set(xlabel="predicted", ylabel="label", title=f"Confusion, {about_run(summary)}")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    figure.colorbar(shown, ax=ax, shrink=0.6, label="% of the label's pixels").outline.set_visible(False)
    return figure


@styled
def classes(summary: Mapping[str, Any]) -> Figure:
    """IoU of each class, the worst first; the line is the mIoU."""
    lines = sorted((c for c in summary["classes"] if c["iou"] is not None), key=lambda c: (c["iou"], c["class"]))
    number = len(lines)
    lines = lines[:MOST_CLASSES]
    few = len(lines) <= FEW_CLASSES
    figure, axes = new_figure(6.4, 1.1 + (0.24 if few else 0.12) * len(lines))
    ax = axes[0, 0]
    ax.axvline(summary["miou"], color=GREY, linewidth=0.8)
    ax.barh(range(len(lines)), [c["iou"] for c in lines], color=FIRST, height=0.7)
    ax.set_yticks(range(len(lines)), [c["name"] for c in lines], fontsize=8 if few else 5)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    of = f"; the worst {len(lines)} of {number} classes" if number > len(lines) else ""
    ax.set(xlabel=f"IoU (%); line: mIoU{of}", title=about_run(summary))
    return figure


@styled
def against_classes(summary: Mapping[str, Any]) -> Figure:
    """IoU of each class in both runs."""
    against = summary["against"]
    lines = [c for c in against["classes"] if c["first"] is not None and c["second"] is not None]
    lines = sorted(lines, key=lambda c: (c["first"] - c["second"], c["class"]))[:MOST_CLASSES]
    few = len(lines) <= FEW_CLASSES
    figure, axes = new_figure(6.8, 1.5 + (0.26 if few else 0.12) * len(lines))
    ax = axes[0, 0]
    for y, line in enumerate(lines):
        ax.plot([line["first"], line["second"]], [y, y], color=GREY, linewidth=0.8)
    for key, colour, marker in (("first", FIRST, "o"), ("second", SECOND, "s")):
        label = f"run {against[key]['run_id']} ({against[key]['model']})"
        ax.plot([c[key] for c in lines], range(len(lines)), marker, color=colour, markersize=4, label=label)
    ax.set_yticks(range(len(lines)), [c["name"] for c in lines], fontsize=8 if few else 5)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.set_xlabel("IoU (%)")
    figure.legend(loc="outside upper left", ncols=1, frameon=False, fontsize=8)
    return figure


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
            _picture(ax, pixels, caption)
    title = f"The {len(shown)} worst images by their mean IoU; dark: counts for nothing\n{about_run(summary)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    if number <= FEW_CLASSES:
        _legend(figure, [c["name"] for c in summary["classes"]], palette)
    return figure


def _legend(figure: Figure, names: Sequence[str], palette: NDArray[np.uint8]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=tuple(colour / 255), label=name) for name, colour in zip(names, palette, strict=True)]
    figure.legend(handles=handles, loc="upper right", ncols=6, fontsize=5.5, frameon=False, borderaxespad=0.1)


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


def _picture(ax: Axes, image: NDArray[np.uint8], caption: str) -> None:
    ax.imshow(image, vmin=0, vmax=255)
    ax.set_title(caption, fontsize=6.5, loc="center", pad=2)
    ax.set_axis_off()
