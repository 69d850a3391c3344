"""Sheets of images with what was predicted and what is true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from metaformer_ablate.drawing.canvas import GREY
from metaformer_ablate.drawing.pages import FEW_CLASSES, image_grid, new_figure, styled
from metaformer_ablate.tasks.error_analysis.figures import FIRST, MOST_CLASSES, SECOND, about_run, picture
from metaformer_ablate.tasks.error_analysis.runs import briefly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor


COLUMNS = 6  # of a sheet

Images: TypeAlias = "Callable[[Sequence[int]], Tensor]"  # indices of the split to uint8 [n, C, H, W]


def _pictures(lines: Sequence[Mapping[str, Any]], at: Images) -> NDArray[np.uint8]:
    return at([line["index"] for line in lines]).numpy() if lines else np.empty((0, 1, 1, 1), dtype=np.uint8)


def _picture(ax: Axes, image: NDArray[np.uint8], caption: str = "") -> None:
    """A [C, H, W] image without axes."""
    picture(ax, image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0), caption)


def _caption(line: Mapping[str, Any]) -> str:
    return f"{line['label_name']}\n→ {line['predicted_name']}, {line['confidence']:.0f}%"


@styled
def sheet(lines: Sequence[Mapping[str, Any]], images: NDArray[np.uint8], title: str) -> Figure:
    """Pictures with label, prediction and confidence; `images` is [len(lines), C, H, W]."""
    rows = max(1, -(-len(lines) // COLUMNS))
    figure, axes = image_grid(1.25, 1.55, rows, COLUMNS)
    _fill(axes, lines, images)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _fill(axes: Any, lines: Sequence[Mapping[str, Any]], images: NDArray[np.uint8]) -> None:
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, line, image in zip(axes.flat, lines, images, strict=False):
        _picture(ax, image, _caption(line))


def mistakes(summary: Mapping[str, Any], at: Images) -> Figure:
    """The most confident mistakes."""
    lines = summary["mistakes"]
    title = f"The {len(lines)} most confident mistakes (label → prediction, confidence)\n{about_run(summary)}"
    return sheet(lines, _pictures(lines, at), title)


def against_sheets(against: Mapping[str, Any], at: Images) -> dict[str, Figure]:
    """One sheet for the images that only the first run gets right, and one for those that only the second does."""
    found = {}
    for key, right, wrong in (("only_first", "first", "second"), ("only_second", "second", "first")):
        lines = against["examples"][key]
        winner, loser = against[right], against[wrong]
        title = (
            f"{against[key]:,} images that only {briefly(winner)} gets right; shown: the {len(lines)} of\n"
            f"which {briefly(loser)} is most confident (label → its prediction, its confidence)"
        )
        found[key] = sheet(lines, _pictures(lines, at), title)
    return found


@styled
def gradcam(
    summary: Mapping[str, Any],
    found: Mapping[str, Any],
    images: NDArray[np.uint8],
    maps: Mapping[str, NDArray[np.float32]],
) -> Figure:
    """For each mistake: the picture, what speaks for the prediction, and what speaks for the label.

    `images` is [n, C, H, W] of the mistakes; `maps` has `predicted` and `label`, [n, h, w] of Grad-CAM.
    """
    lines = found["mistakes"]
    across = 2  # mistakes in a row
    rows = -(-len(lines) // across)
    figure, axes = image_grid(1.3, 1.6, rows, 3 * across)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, line in enumerate(lines):
        row, column = i // across, 3 * (i % across)
        _picture(axes[row, column], images[i], _caption(line))
        for k, key in enumerate(("predicted", "label")):
            heat = maps[key][i]
            ax = axes[row, column + 1 + k]
            _picture(ax, images[i], f"for {line[f'{key}_name']}")
            side = images.shape[-1]
            if heat.max() > 0:
                ax.imshow(
                    heat / heat.max(),
                    cmap="inferno",
                    alpha=0.2 + 0.6 * heat / heat.max(),
                    vmin=0,
                    vmax=1,
                    extent=(-0.5, side - 0.5, side - 0.5, -0.5),
                    interpolation="bilinear",
                )
            else:
                ax.set_title(f"nothing for {line[f'{key}_name']}", fontsize=6.5, loc="center", pad=2)
    size = " x ".join(map(str, found["map"]))
    figure.suptitle(
        f"Grad-CAM of {found['layer']} ({size} positions) on confident mistakes; bright: evidence for the class, "
        f"each map over its own largest\n{about_run(summary)}",
        x=0.01,
        ha="left",
    )
    return figure


@styled
def probe(name: str, found: Mapping[str, Any], shown: Iterable[tuple[float, NDArray[np.uint8]]], where: str) -> Figure:
    """Accuracy against severity with its interval, above one row of pictures of what the model was shown; beside it
    the accuracy of each class.

    `shown` is (severity, [C, H, W]) of one image.
    """
    runs = found["runs"]
    severities = [point["severity"] for point in runs[0]["points"]]
    number = len(runs[0]["points"][0]["classes"])
    names = [c["name"] for c in runs[0]["points"][0]["classes"][:MOST_CLASSES]]
    height = max(4.2, 1.6 + (0.24 if len(names) <= FEW_CLASSES else 0.11) * len(names))
    figure, axes = new_figure(5.2 + 4.0 * len(runs), height, 1, 1 + len(runs), width_ratios=[1.25] + [1] * len(runs))
    ax = axes[0, 0]
    for run, colour, marker in zip(runs, (FIRST, SECOND), ("o", "s"), strict=False):
        points = run["points"]
        low, high = ([point["ci95"][end] for point in points] for end in (0, 1))
        ax.fill_between(severities, low, high, color=colour, alpha=0.2, linewidth=0)
        label = briefly(run)
        ax.plot(severities, [p["accuracy"] for p in points], marker=marker, markersize=4, color=colour, label=label)
    ax.axvline(found["clean"], color=GREY, linewidth=0.8, linestyle=":")
    ax.axhline(100 / number, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel=f"{name}: {found['unit']}", ylabel="Accuracy (%), band: 95% Wilson interval")
    ax.set_ylim(bottom=0, top=100)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.12))
    pictures = list(shown)
    step = 1 / len(pictures)
    for i, (severity, image) in enumerate(pictures):
        small = ax.inset_axes((i * step, 1.0, step * 0.94, 0.1))
        _picture(small, image)
        small.set_title(f"{severity:g}", fontsize=6, loc="center", pad=1)
    for run, beside in zip(runs, axes[0, 1:], strict=True):
        drawn = _class_map(beside, run, names)
        beside.set_xticks(range(len(severities)), [f"{s:g}" for s in severities], fontsize=7, rotation=90)
        beside.set(xlabel=f"{name}", title=f"Accuracy per class (%)\n{briefly(run)}")
        beside.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes[0, -1], shrink=0.5).outline.set_visible(False)
    figure.suptitle(f"Probe {name} on {where}: {found['about']}", x=0.01, ha="left")
    return figure


def _class_map(ax: Any, run: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The accuracy of each class at each severity, as a map with numbers where there are few classes."""
    import matplotlib

    shares = [[c["accuracy"] for c in point["classes"][:MOST_CLASSES]] for point in run["points"]]
    values = np.array(shares, dtype=float)  # None, of a class without images, becomes NaN
    colours = matplotlib.colormaps["viridis"]
    drawn = ax.imshow(values.T, cmap=colours, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
    few = len(names) <= FEW_CLASSES
    for (i, k), value in np.ndenumerate(values):
        if few and np.isfinite(value):
            color = "black" if value > 55 else "white"
            ax.text(i, k, f"{value:.0f}", ha="center", va="center", fontsize=6, color=color)
    ax.set_yticks(range(len(names)), names, fontsize=7 if few else 4.5)
    return drawn
