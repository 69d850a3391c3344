"""Figures that a notebook shows by themselves."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

SCREEN_DPI = 110


class ShownFigure(Figure):
    """A matplotlib figure that a notebook shows where it is the value of a cell, with or without pyplot."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.savefig(stream, format="png", dpi=SCREEN_DPI, metadata={"Software": None})
        return stream.getvalue()
