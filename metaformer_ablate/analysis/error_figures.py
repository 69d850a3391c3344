"""Figures of what analysis/errors.py, probes.py and gradcam.py found. Draws given numbers, computes none.

Every figure is made on the Agg canvas under matplotlib's own defaults, so that the same numbers give the same bytes
whatever the user's settings.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Okabe and Ito's blue and vermilion: apart for colour-blind readers and in grey.
FIRST, SECOND, GREY = "#0072B2", "#D55E00", "#767676"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
FEW_CLASSES = 20  # up to here each has its cell with a number and a readable name
MOST_CLASSES = 100  # more are not drawn, a line each: errors.json has them all
COLUMNS = 6  # of a sheet

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draws under STYLE: matplotlib looks its settings up at every call, not only when the figure is made."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        with _style():
            return draw(*args, **kwargs)

    return styled


def figures(summary: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures that `errors.summary` alone is enough for, by name: confusion, classes and calibration."""
    return {
        "confusion": confusion(summary),
        "classes": classes(summary),
        "calibration": calibration(summary),
    }


def to_png(figure: Figure) -> bytes:
    """The same bytes for the same figure: no date and no version in them."""
    stream = io.BytesIO()
    with _style():
        figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, layout: Any = "constrained", **options: Any
) -> tuple[Figure, Any]:
    """A figure of inches and its axes [rows, columns]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _grid(width: float, height: float, rows: int, columns: int) -> tuple[Figure, Any]:
    """Axes of one size for pictures under a caption of two lines and a title of two: laid out by hand, as the search
    for a layout takes seconds where axes are many."""
    title, caption = 0.45, 0.32  # inches
    figure, axes = _figure(width * columns, height * rows + title, rows, columns, layout="none")
    whole = height * rows + title
    figure.subplots_adjust(
        left=0.01,
        right=0.99,
        bottom=0.05 / whole,
        top=1 - (title + caption) / whole,
        wspace=0.06,
        hspace=caption / (height - caption),
    )
    return figure, axes


def _about(summary: Mapping[str, Any]) -> str:
    return f"run {summary['run_id']}: {summary['model']}, seed {summary['seed']}, {_where(summary)}"


def _where(summary: Mapping[str, Any]) -> str:
    return f"{summary['dataset']} ({summary['split']})"


@_styled
def confusion(summary: Mapping[str, Any]) -> Figure:
    """Share of each class's images that is taken for another, counts in the cells; right ones in grey."""
    counts = np.array(summary["confusion"])
    number = len(counts)
    few = number <= FEW_CLASSES
    of = counts.sum(axis=1, keepdims=True)
    wrong = 100 * counts / np.maximum(of, 1)
    np.fill_diagonal(wrong, np.nan)
    side = 2.6 + 0.45 * number if few else min(2.6 + 0.11 * number, 14)
    figure, axes = _figure(side + 0.8, side)
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
    ax.set(xlabel="predicted", ylabel="label", title=f"Confusion, {_about(summary)}")
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


@_styled
def classes(summary: Mapping[str, Any]) -> Figure:
    """Accuracy a class, the worst first, with its interval; the line is the accuracy over all images."""
    lines = sorted((c for c in summary["classes"] if c["images"]), key=lambda c: (c["accuracy"], c["class"]))
    number = len(lines)
    lines = lines[:MOST_CLASSES]
    figure, axes = _figure(6.4, 1.1 + (0.24 if len(lines) <= FEW_CLASSES else 0.12) * len(lines))
    ax = axes[0, 0]
    ax.axvline(summary["accuracy"], color=GREY, linewidth=0.8)
    _intervals(ax, lines, range(len(lines)))
    ax.set_yticks(range(len(lines)), [c["name"] for c in lines], fontsize=8 if len(lines) <= FEW_CLASSES else 5)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    of = f"; the worst {len(lines)} of {number} classes" if number > len(lines) else ""
    ax.set(xlabel=f"right (%), with the 95% Wilson interval; line: all classes{of}", title=_about(summary))
    return figure


@_styled
def calibration(summary: Mapping[str, Any]) -> Figure:
    """Reliability diagram (accuracy against confidence in each bin) above the number of images in each bin."""
    found = summary["calibration"]
    bins = [b for b in found["bins"] if b["images"]]
    figure, axes = _figure(4.8, 5.4, 2, sharex=True, height_ratios=[3, 1])
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
    ax.set(xlim=(0, 100), ylim=(0, 100), ylabel="right (%)", title=f"Calibration\n{_about(summary)}")
    edges = [b["above"] for b in found["bins"]] + [100]
    below.stairs([b["images"] for b in found["bins"]], edges, fill=True, color=FIRST)
    below.set(xlabel="confidence (%)", ylabel="images")
    return figure


@_styled
def object_size(lines: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Figure:
    """Accuracy by fifths of object size."""
    figure, axes = _figure(6.4, 2.4)
    ax = axes[0, 0]
    ax.axvline(summary["accuracy"], color=GREY, linewidth=0.8)
    _intervals(ax, lines, range(len(lines)))
    words = ["smallest fifth", "second", "third", "fourth", "largest fifth"]
    ax.set_yticks(
        range(len(lines)), [f"{word} ({line['size']:.0f}% filled)" for word, line in zip(words, lines, strict=True)]
    )
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.set(xlabel="right (%), 95% Wilson interval; fifths of each class by size", title=_about(summary))
    return figure


def _picture(ax: Axes, image: NDArray[np.uint8], caption: str = "") -> None:
    """A [C, H, W] image without axes."""
    grey = image.shape[0] == 1
    ax.imshow(image[0] if grey else image.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=255)
    ax.set_title(caption, fontsize=6.5, loc="center", pad=2)
    ax.set_axis_off()


def _caption(line: Mapping[str, Any]) -> str:
    return f"{line['label_name']}\n→ {line['predicted_name']}, {line['confidence']:.0f}%"


@_styled
def sheet(lines: Sequence[Mapping[str, Any]], images: NDArray[np.uint8], title: str) -> Figure:
    """Pictures with label, prediction and confidence; `images` is [len(lines), C, H, W]."""
    rows = max(1, -(-len(lines) // COLUMNS))
    figure, axes = _grid(1.25, 1.55, rows, COLUMNS)
    _fill(axes, lines, images)
    figure.suptitle(title, x=0.01, ha="left", fontsize=9)
    return figure


def _fill(axes: Any, lines: Sequence[Mapping[str, Any]], images: NDArray[np.uint8]) -> None:
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, line, image in zip(axes.flat, lines, images, strict=False):
        _picture(ax, image, _caption(line))


def mistakes(summary: Mapping[str, Any], images: NDArray[np.uint8]) -> Figure:
    """The most confident mistakes; `images` is the whole split [N, C, H, W]."""
    lines = summary["mistakes"]
    title = f"The {len(lines)} most confident mistakes (label → prediction, confidence)\n{_about(summary)}"
    return sheet(lines, images[[line["index"] for line in lines]], title)


def against_sheets(against: Mapping[str, Any], images: NDArray[np.uint8]) -> dict[str, Figure]:
    """One sheet for the images that only the first run gets right, and one for those that only the second does."""
    found = {}
    for key, right, wrong in (("only_first", "first", "second"), ("only_second", "second", "first")):
        lines = against["examples"][key]
        winner, loser = against[right], against[wrong]
        title = (
            f"{against[key]:,} images that only run {winner['run_id']} ({winner['model']}) gets right; shown: the "
            f"{len(lines)} of which\nrun {loser['run_id']} ({loser['model']}) is surest (label → its prediction, "
            "its confidence)"
        )
        found[key] = sheet(lines, images[[line["index"] for line in lines]], title)
    return found


@_styled
def against_classes(summary: Mapping[str, Any]) -> Figure:
    """For each class, the images that only one of two runs gets right, to either side."""
    against = summary["against"]
    lines = sorted(against["classes"], key=lambda c: -abs(c["only_first"] - c["only_second"]))[:MOST_CLASSES]
    lines.sort(key=lambda c: (c["only_first"] - c["only_second"], c["class"]))
    figure, axes = _figure(6.8, 1.5 + (0.26 if len(lines) <= FEW_CLASSES else 0.12) * len(lines))
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


@_styled
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
    figure, axes = _grid(1.3, 1.6, rows, 3 * across)
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
        f"Grad-CAM of {found['layer']} ({size} positions) on confident mistakes; bright: speaks for the class, "
        f"each map over its own largest\n{_about(summary)}",
        x=0.01,
        ha="left",
        fontsize=8,
    )
    return figure


@_styled
def probe(name: str, found: Mapping[str, Any], shown: Iterable[tuple[float, NDArray[np.uint8]]], where: str) -> Figure:
    """Accuracy against severity with its interval, above one row of pictures of what the model was shown; beside it
    the accuracy of each class.

    `shown` is (severity, [C, H, W]) of one image.
    """
    import matplotlib

    runs = found["runs"]
    severities = [point["severity"] for point in runs[0]["points"]]
    number = len(runs[0]["points"][0]["classes"])
    names = [c["name"] for c in runs[0]["points"][0]["classes"][:MOST_CLASSES]]
    height = max(4.2, 1.6 + (0.24 if len(names) <= FEW_CLASSES else 0.11) * len(names))
    figure, axes = _figure(5.2 + 4.0 * len(runs), height, 1, 1 + len(runs), width_ratios=[1.25] + [1] * len(runs))
    ax = axes[0, 0]
    for run, colour, marker in zip(runs, (FIRST, SECOND), ("o", "s"), strict=False):
        points = run["points"]
        low, high = ([point["ci95"][end] for point in points] for end in (0, 1))
        ax.fill_between(severities, low, high, color=colour, alpha=0.2, linewidth=0)
        label = f"run {run['run_id']} ({run['model']}, seed {run['seed']})"
        ax.plot(severities, [p["accuracy"] for p in points], marker=marker, markersize=4, color=colour, label=label)
    ax.axvline(found["clean"], color=GREY, linewidth=0.8, linestyle=":")
    ax.axhline(100 / number, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel=f"{name}: {found['unit']}", ylabel="right (%), band: 95% Wilson interval")
    ax.set_ylim(bottom=0, top=100)
    ax.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.12))
    pictures = list(shown)
    step = 1 / len(pictures)
    for i, (severity, image) in enumerate(pictures):
        small = ax.inset_axes((i * step, 1.0, step * 0.94, 0.1))
        _picture(small, image)
        small.set_title(f"{severity:g}", fontsize=6, loc="center", pad=1)
    colours = matplotlib.colormaps["viridis"]
    for run, beside in zip(runs, axes[0, 1:], strict=True):
        shares = [[c["accuracy"] for c in point["classes"][:MOST_CLASSES]] for point in run["points"]]
        values = np.array(shares, dtype=float)  # None, of a class without images, becomes NaN
        drawn = beside.imshow(values.T, cmap=colours, vmin=0, vmax=100, aspect="auto", interpolation="nearest")
        if len(names) <= FEW_CLASSES:
            for (i, k), value in np.ndenumerate(values):
                if np.isfinite(value):
                    beside.text(
                        i,
                        k,
                        f"{value:.0f}",
                        ha="center",
                        va="center",
                        fontsize=6,
                        color="black" if value > 55 else "white",
                    )
        beside.set_yticks(range(len(names)), names, fontsize=7 if len(names) <= FEW_CLASSES else 4.5)
        beside.set_xticks(range(len(severities)), [f"{s:g}" for s in severities], fontsize=7, rotation=90)
        beside.set(xlabel=f"{name}", title=f"right (%) a class, run {run['run_id']}")
        beside.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=axes[0, -1], shrink=0.5).outline.set_visible(False)
    figure.suptitle(f"Probe {name} on {where}: {found['about']}", x=0.01, ha="left", fontsize=9)
    return figure
