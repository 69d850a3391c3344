"""Figures of what analysis/errors.py, probes.py and gradcam.py found. Draws given numbers, computes none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.drawing.canvas import COLOURS, GREY
from metaformer_ablate.drawing.pages import FEW_CLASSES, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FIRST, SECOND = COLOURS[:2]


MOST_CLASSES = 100  # more are not drawn, a line each: errors.json has them all


def figures(summary: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that `errors.summary` alone is enough for, by name: confusion, classes and calibration."""
    return {
        "confusion": confusion(summary),
        "classes": classes(summary),
        "calibration": calibration(summary),
    }


def about_run(summary: Mapping[str, Any]) -> str:
    return f"run {summary['run_id']}: {summary['model']}, seed {summary['seed']}, {_where(summary)}"


def _where(summary: Mapping[str, Any]) -> str:
    return f"{summary['dataset']} ({summary['split']})"


@styled
def confusion(summary: Mapping[str, Any]) -> Figure:
    """Share of each class's images that is taken for another, counts in the cells; right ones in grey."""
    counts = np.array(summary["confusion"])
    number = len(counts)
    few = number <= FEW_CLASSES
    of = counts.sum(axis=1, keepdims=True)
    wrong = 100 * counts / np.maximum(of, 1)
    np.fill_diagonal(wrong, np.nan)
    side = 2.6 + 0.45 * number if few else min(2.6 + 0.11 * number, 14)
    figure, axes = new_figure(side + 0.8, side)
    ax = axes[0, 0]
    shown = ax.imshow(wrong, cmap=_colours(), vmin=0, vmax=max(np.nanmax(wrong), 1e-9))
    if few:
        for i, j in np.ndindex(*counts.shape):
            if counts[i, j]:
                dark = i != j and wrong[i, j] > 0.6 * np.nanmax(wrong)
                ax.text(
                    j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=7, color="white" if dark else "black"
                )
    names = [c["name"] for c in summary["classes"]]
    if number <= 200:
        size = 8 if few else 4.5
        ax.set_xticks(range(number), names, rotation=90, fontsize=size)
        ax.set_yticks(range(number), names, fontsize=size)
    ax.set(xlabel="predicted", ylabel="label", title=f"Confusion, {about_run(summary)}")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    bar = figure.colorbar(shown, ax=ax, shrink=0.6, label="taken for another (% of the label's images)")
    bar.outline.set_visible(False)
    return figure


def _colours() -> Any:
    import matplotlib

    return matplotlib.colormaps["Blues"].with_extremes(bad="#DDDDDD")  # bad: the diagonal


def _intervals(ax: Axes, lines: Sequence[Mapping[str, Any]], positions: Sequence[float], **how: Any) -> None:
    """Accuracies with their intervals, one line a position from the top."""
    for line, y in zip(lines, positions, strict=True):
        if line["accuracy"] is not None:
            ax.plot(line["ci95"], [y, y], color=how.get("color", FIRST), linewidth=1.2)
            ax.plot(line["accuracy"], y, "o", markersize=4, color=how.get("color", FIRST))


@styled
def classes(summary: Mapping[str, Any]) -> Figure:
    """Accuracy a class, the worst first, with its interval; the line is the accuracy over all images."""
    lines = sorted((c for c in summary["classes"] if c["images"]), key=lambda c: (c["accuracy"], c["class"]))
    number = len(lines)
    lines = lines[:MOST_CLASSES]
    figure, axes = new_figure(6.4, 1.1 + (0.24 if len(lines) <= FEW_CLASSES else 0.12) * len(lines))
    ax = axes[0, 0]
    ax.axvline(summary["accuracy"], color=GREY, linewidth=0.8)
    _intervals(ax, lines, range(len(lines)))
    ax.set_yticks(range(len(lines)), [c["name"] for c in lines], fontsize=8 if len(lines) <= FEW_CLASSES else 5)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    of = f"; the worst {len(lines)} of {number} classes" if number > len(lines) else ""
    ax.set(xlabel=f"right (%), with the 95% Wilson interval; line: all classes{of}", title=about_run(summary))
    return figure


@styled
def calibration(summary: Mapping[str, Any]) -> Figure:
    """Reliability diagram (accuracy against confidence in each bin) above the number of images in each bin."""
    found = summary["calibration"]
    bins = [b for b in found["bins"] if b["images"]]
    figure, axes = new_figure(4.8, 5.4, 2, sharex=True, height_ratios=[3, 1])
    ax, below = axes[:, 0]
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    for b in bins:
        ax.plot([b["confidence"]] * 2, b["ci95"], color=FIRST, linewidth=1.2)
    ax.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], "o", markersize=4, color=FIRST)
    chance = found["ece_if_calibrated"]
    ax.text(
        98,
        2,
        f"ECE {found['ece']:.2f} points\nexact confidences would show\nabout {chance['mean']:.2f} (95%: "
        f"up to {chance['q95']:.2f})",
        ha="right",
        va="bottom",
        fontsize=8,
    )
    ax.set(xlim=(0, 100), ylim=(0, 100), ylabel="right (%)", title=f"Calibration\n{about_run(summary)}")
    edges = [b["above"] for b in found["bins"]] + [100]
    below.stairs([b["images"] for b in found["bins"]], edges, fill=True, color=FIRST)
    below.set(xlabel="confidence (%)", ylabel="images")
    return figure


@styled
def object_size(lines: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Figure:
    """Accuracy by fifths of object size."""
    figure, axes = new_figure(6.4, 2.4)
    ax = axes[0, 0]
    ax.axvline(summary["accuracy"], color=GREY, linewidth=0.8)
    _intervals(ax, lines, range(len(lines)))
    words = ["smallest fifth", "second", "third", "fourth", "largest fifth"]
    ax.set_yticks(
        range(len(lines)), [f"{word} ({line['size']:.0f}% filled)" for word, line in zip(words, lines, strict=True)]
    )
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.set(xlabel="right (%), 95% Wilson interval; fifths of each class by size", title=about_run(summary))
    return figure


@styled
def against_classes(summary: Mapping[str, Any]) -> Figure:
    """For each class, the images that only one of two runs gets right, to either side."""
    against = summary["against"]
    lines = sorted(against["classes"], key=lambda c: -abs(c["only_first"] - c["only_second"]))[:MOST_CLASSES]
    lines.sort(key=lambda c: (c["only_first"] - c["only_second"], c["class"]))
    figure, axes = new_figure(6.8, 1.5 + (0.26 if len(lines) <= FEW_CLASSES else 0.12) * len(lines))
    ax = axes[0, 0]
    y = np.arange(len(lines))
    for key, colour, sign, run in (("only_second", SECOND, -1, "second"), ("only_first", FIRST, 1, "first")):
        label = f"only run {against[run]['run_id']} ({against[run]['model']}) right"
        ax.barh(y, [sign * c[key] for c in lines], color=colour, height=0.7, label=label)
    net = [c["only_first"] - c["only_second"] for c in lines]
    ax.plot(net, y, "D", color="black", markersize=3.5, label="difference")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(y, [c["name"] for c in lines], fontsize=8 if len(lines) <= FEW_CLASSES else 5)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.xaxis.set_major_formatter(lambda value, position: f"{abs(value):g}")
    ax.set_xlabel(f"images of {_where(summary)}, {summary['images']:,} in all")
    figure.legend(loc="outside upper left", ncols=1, frameon=False, fontsize=8)
    return figure
