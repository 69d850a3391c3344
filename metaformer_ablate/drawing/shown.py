"""Figures that a notebook shows by themselves."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from PIL import Image

SCREEN_DPI = 100


class ShownFigure(Figure):
    """A matplotlib figure that a notebook shows where it is the value of a cell, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=SCREEN_DPI, metadata={"Software": None})
        # Of 48 colours a file is a third as large, and a notebook keeps it.
        small = io.BytesIO()
        Image.open(stream).convert("RGB").quantize(48).save(small, format="png", optimize=True)
        return small.getvalue()
