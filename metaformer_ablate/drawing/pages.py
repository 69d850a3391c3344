"""Figures of single pages: drawn in our style, and grids of pictures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from metaformer_ablate.drawing import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FEW_CLASSES = 20  # up to here each has its cell with a number and a readable name


P = ParamSpec("P")


R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draws in our style: matplotlib looks its settings up at every call, not only when the figure is made."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> R:
        with canvas.styled():
            return draw(*args, **kwargs)

    return styled


def to_png(figure: Figure) -> bytes:
    """The same bytes for the same figure."""
    return canvas.to_bytes(figure, "png")


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, layout: Any = "constrained", **options: Any
) -> tuple[Figure, Any]:
    """A figure of inches and its axes [rows, columns]."""
    figure = canvas.new_figure(width, height, layout)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def image_grid(width: float, height: float, rows: int, columns: int) -> tuple[Figure, Any]:
    """Axes of one size for pictures under a caption of two lines and a title of two: laid out by hand, as the search
    for a layout takes seconds where axes are many."""
    title, caption = 0.45, 0.32  # inches
    figure, axes = new_figure(width * columns, height * rows + title, rows, columns, layout="none")
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
