"""How rows look in a figure, and what is said of them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Okabe and Ito (2008), told apart by every kind of colour vision; without the yellow, which white paper swallows.
# Groups differ in their marker too, for print in grey. Black is the baseline's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


MARKERS = ("o", "s", "D", "P", "X", "p", "h")  # triangles are for what is off the scale


GREY = "#737373"


_WIDTH = 7.2  # inches: the text of a page


LINE_HEIGHT = 0.135  # inches between two lines of text


_RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 200,  # as it is saved: text of other dots an inch is a little wider or narrower, and would be cut
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7.5,
    "grid.color": "#dedede",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 200,
    "text.parse_math": False,  # a dollar in a label is a dollar
    "svg.fonttype": "path",  # the same on machines that lack the font
    "svg.hashsalt": "metaformer_ablate",
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib as it comes, with our settings over it, whatever the user has set."""
    import matplotlib

    machine = ("backend", "interactive", "toolbar", "timezone", "tk.", "webagg.", "macosx.")
    settings: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(machine)}
    with matplotlib.rc_context({**settings, **_RC}):
        yield


class Page:
    """A figure of the page's width with its caption at the foot."""

    def __init__(self, data: dict[str, Any], height: float, caption: Sequence[str]):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        words = " ".join([f"{data['experiment']} under {data['recipe']}", *data["overrides"]]) + "."
        lines = textwrap.wrap(" ".join([words, *(text for text in caption if text)]), 136)
        foot = 0.07 + LINE_HEIGHT * 0.85 * len(lines)
        self.figure = Figure(figsize=(_WIDTH, height + foot), layout="constrained")
        FigureCanvasAgg(self.figure)
        engine: Any = self.figure.get_layout_engine()
        engine.set(rect=(0, foot / (height + foot), 1, height / (height + foot)), w_pad=0.04, h_pad=0.04)
        self.figure.text(
            0.08 / _WIDTH, 0.05 / (height + foot), "\n".join(lines), size=6.5, color="#404040", va="bottom"
        ).set_in_layout(False)


def format_number(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def plain_label(label: str) -> str:
    return label.replace("->", "\N{RIGHTWARDS ARROW}")


def wrapped(label: str, width: int) -> str:
    return "\n".join(textwrap.wrap(plain_label(label), width))


def row_styles(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each row: those of its group; the baseline's own."""
    others = dict.fromkeys(row["group"] for row in data["rows"] if row["name"] != data["baseline"])
    by_group = {
        group: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[1 + i % (len(MARKERS) - 1)]}
        for i, group in enumerate(others)
    }
    baseline = {"color": "black", "marker": "o"}
    return {
        row["name"]: baseline if row["name"] == data["baseline"] else by_group[row["group"]] for row in data["rows"]
    }


def ending_remark(row: dict[str, Any]) -> str:
    """`2 of 3 diverged, at chance`: what of a row's runs is not as it should be; empty where all is."""
    if not row["seeds"]:
        return "not applicable"
    planned = sum(map(len, row["seeds"].values()))
    parts = []
    for status, seeds in row["seeds"].items():
        if status != "ok":
            parts.append(status if len(seeds) == planned else f"{len(seeds)} of {planned} {status}")
    if chance := len(row["at_chance"]):
        parts.append("at chance" if chance == row["n"] else f"{chance} of {planned} at chance")
    return ", ".join(parts)


def seeds_remark(data: dict[str, Any]) -> str:
    counts = sorted({row["n"] for row in data["rows"] if row["n"]})
    if not counts:
        return "No run has a result yet."
    if len(counts) == 1:
        return f"{counts[0]} seed{'s' if counts[0] > 1 else ''} a row."
    return f"{counts[0]} to {counts[-1]} seeds a row."


def hollow_remark(intervals: Iterable[Any]) -> str:
    if all(intervals):
        return ""
    return "Hollow: no interval, being of one seed or of seeds that all gave the same."


def to_bytes(figure: Figure, format: str) -> bytes:
    """A figure as a png (200 dots an inch), svg or pdf file: the same bytes for the same data."""
    if format not in FORMATS:
        raise RequestError(unknown("format", format, FORMATS))
    dates = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None, "Producer": None}}
    stream = io.BytesIO()
    with styled():
        # The solver of the layout may differ in a last digit from call to call, and the ids in an svg hash coordinates.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes in figure.axes:
            left, bottom, width, height = axes.get_position().bounds
            axes.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))
        figure.savefig(stream, format=format, metadata=dates[format])
    return stream.getvalue()


FORMATS = ("png", "svg", "pdf")
