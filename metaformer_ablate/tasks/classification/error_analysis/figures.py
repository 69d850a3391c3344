"""Figures of what summary.py and comparison.py found. Draws what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.drawing.canvas import GREY
from metaformer_ablate.drawing.pages import FEW_CLASSES, new_figure, styled
from metaformer_ablate.tasks.error_analysis.figures import (
    FIRST,
    MOST_CLASSES,
    SECOND,
    about_run,
    class_lines,
    matrix,
    name_lines,
    of_how_many,
    where,
    write_cell,
)
from metaformer_ablate.tasks.error_analysis.runs import briefly

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def figures(summary: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that `errors.summary` alone is enough for, by name: confusion, classes and calibration."""
    return {
        "confusion": confusion(summary),
        "classes": classes(summary),
        "calibration": calibration(summary),
    }


@styled
def confusion(summary: Mapping[str, Any]) -> Figure:
    """Share of each class's images that is taken for another, counts in the cells; right ones in grey."""
    counts = np.array(summary["confusion"])
    number = len(counts)
    few = number <= FEW_CLASSES
    of = counts.sum(axis=1, keepdims=True)
    wrong = 100 * counts / np.maximum(of, 1)
    np.fill_diagonal(wrong, np.nan)
    names = [c["name"] for c in summary["classes"]]
    labels = "Predicted class", "True class", "Misclassified (% of the class)"
    most = max(np.nanmax(wrong), 1e-9)
    figure, ax = matrix(summary, wrong, (names, names), labels, most)  # grey: the diagonal
    for i, j in np.ndindex(*counts.shape) if few else ():
        if counts[i, j]:
            write_cell(ax, i, j, f"{counts[i, j]}", i != j and wrong[i, j] > 0.6 * most)
    return figure


def _intervals(ax: Axes, lines: Sequence[Mapping[str, Any]], positions: Sequence[float], **how: Any) -> None:
    """Accuracies with their intervals, one line a position from the top."""
    for line, y in zip(lines, positions, strict=True):
        if line["accuracy"] is not None:
            ax.plot(line["ci95"], [y, y], color=how.get("color", FIRST), linewidth=1.2)
            ax.plot(line["accuracy"], y, "o", markersize=4, color=how.get("color", FIRST))


@styled
def classes(summary: Mapping[str, Any]) -> Figure:
    """Accuracy per class, the worst first, with its interval; the line is the accuracy over all images."""
    lines = sorted((c for c in summary["classes"] if c["images"]), key=lambda c: (c["accuracy"], c["class"]))
    number = len(lines)
    lines = lines[:MOST_CLASSES]
    figure, ax = class_lines(len(lines), 1.1)
    ax.axvline(summary["accuracy"], color=GREY, linewidth=0.8)
    _intervals(ax, lines, range(len(lines)))
    name_lines(ax, lines)
    of = of_how_many(lines, number)
    ax.set(xlabel=f"Accuracy per class (%), 95% Wilson interval; line: all classes{of}", title=about_run(summary))
    return figure


@styled
def calibration(summary: Mapping[str, Any]) -> Figure:
    """Reliability diagram (accuracy against confidence in each bin) above the number of images in each bin."""
    found = summary["calibration"]
    bins = [b for b in found["bins"] if b["images"]]
    figure, axes = new_figure(5.6, 5.4, 2, sharex=True, height_ratios=[3, 1])
    ax, below = axes[:, 0]
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    for b in bins:
        ax.plot([b["confidence"]] * 2, b["ci95"], color=FIRST, linewidth=1.2)
    ax.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], "o", markersize=4, color=FIRST)
    chance = found["ece_if_calibrated"]
    ax.text(
        98,
        2,
        f"ECE {found['ece']:.2f} points\na calibrated model would show\nabout {chance['mean']:.2f} (95%: "
        f"up to {chance['q95']:.2f})",
        ha="right",
        va="bottom",
    )
    ax.set(xlim=(0, 100), ylim=(0, 100), ylabel="Accuracy (%)", title=f"Calibration\n{about_run(summary)}")
    edges = [b["above"] for b in found["bins"]] + [100]
    below.stairs([b["images"] for b in found["bins"]], edges, fill=True, color=FIRST)
    below.set(xlabel="Confidence (%)", ylabel="Images")
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
    ax.set(xlabel="Accuracy (%), 95% Wilson interval; fifths of each class by object size", title=about_run(summary))
    return figure


@styled
def against_classes(summary: Mapping[str, Any]) -> Figure:
    """For each class, the images that only one of two runs gets right, to either side."""
    against = summary["against"]
    lines = sorted(against["classes"], key=lambda c: -abs(c["only_first"] - c["only_second"]))[:MOST_CLASSES]
    lines.sort(key=lambda c: (c["only_first"] - c["only_second"], c["class"]))
    figure, ax = class_lines(len(lines), 1.5, 0.26)
    y = np.arange(len(lines))
    for key, colour, sign, run in (("only_second", SECOND, -1, "second"), ("only_first", FIRST, 1, "first")):
        label = f"only {briefly(against[run])} right"
        ax.barh(y, [sign * c[key] for c in lines], color=colour, height=0.7, label=label)
    net = [c["only_first"] - c["only_second"] for c in lines]
    ax.plot(net, y, "D", color="black", markersize=3.5, label="difference")
    ax.axvline(0, color="black", linewidth=0.8)
    name_lines(ax, lines)
    ax.xaxis.set_major_formatter(lambda value, position: f"{abs(value):g}")
    ax.set_xlabel(f"Images of {where(summary)}, {summary['images']:,} in all")
    figure.legend(loc="outside upper left", ncols=1)
    return figure
