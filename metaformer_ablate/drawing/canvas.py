"""One style, one palette and one writer for every figure.

The same figure gives the same bytes under the same version of matplotlib: no dates, fixed hash salts, the font that
matplotlib brings along, and nobody's matplotlibrc. matplotlib is loaded when something is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008), told apart by every kind of colour vision; without the yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


GREY = "#737373"


FORMATS = ("png", "svg", "pdf")


DPI = 200  # dots per inch of a png


FONT = 8.0  # points


# Sizes of text but for the font's are relative to it.
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelsize": "medium",
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.dpi": DPI,  # as it is saved: text of other dots per inch is a little wider or narrower, and would be cut
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "grid.color": "#dedede",
    "grid.linewidth": 0.5,
    "legend.fontsize": "medium",
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": DPI,
    "text.parse_math": False,  # a dollar in a label is a dollar
    "svg.fonttype": "path",  # the same on machines that lack the font
    "svg.hashsalt": "metaformer_ablate",
    "xtick.labelsize": "medium",
    "xtick.major.size": 3.0,
    "xtick.major.width": 0.6,
    "ytick.labelsize": "medium",
    "ytick.major.size": 3.0,
    "ytick.major.width": 0.6,
}


def _sizes(times: float) -> Any:
    """The sizes of what is no text, so many times as large."""
    names = ("axes.linewidth", "grid.linewidth", "lines.linewidth", "lines.markersize")
    ticks = (f"{axis}tick.major.{what}" for axis in "xy" for what in ("size", "width"))
    return {name: STYLE[name] * times for name in (*names, *ticks)}


@contextmanager
def styled(font: float = FONT) -> Iterator[None]:
    """matplotlib as it comes with STYLE over it, whatever the user has set; letters, lines and markers for a font of so
    many points."""
    import matplotlib

    machine = ("backend", "interactive", "toolbar", "timezone", "tk.", "webagg.", "macosx.")
    settings: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(machine)}
    with matplotlib.rc_context({**settings, **STYLE, **_sizes(font / FONT), "font.size": font}):
        yield


def new_figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """An empty figure of inches on the Agg canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from metaformer_ablate.drawing.shown import ShownFigure

    figure = ShownFigure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def to_bytes(figure: Figure, format: str) -> bytes:
    """A figure as a png, svg or pdf file: the same bytes for the same data.

    Raises RequestError for another format.
    """
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
