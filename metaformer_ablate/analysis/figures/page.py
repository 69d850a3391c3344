"""A figure laid out in inches: what stands where is measured, so that nothing is cut and nothing overlaps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaformer_ablate.analysis.figures.data import FigureData, FigureRow
from metaformer_ablate.analysis.figures.look import Look
from metaformer_ablate.analysis.figures.style import ending_remark
from metaformer_ablate.drawing.canvas import new_figure
from metaformer_ablate.drawing.text import line_height, text_height, text_width, wrap

SMALL = 0.9  # of the size of letters: captions and remarks
TICK = 7 / 72  # inches of a tick with the room before its label


class Page:
    """A figure with room of so many inches above its caption, if it has one."""

    def __init__(self, data: FigureData, look: Look, height: float, caption: Sequence[str]):
        words = f"{' '.join([f'{data.experiment} under {data.recipe}', *data.overrides])}."
        text = wrap(" ".join([words, *filter(None, caption)]), look.width - 0.1, look.size * SMALL)
        self._foot = 0.1 + text_height(text, look.size * SMALL) if look.caption else 0.0
        self.width, self.height = look.width, height + self._foot
        self.figure = new_figure(self.width, self.height, layout="none")
        self._size = look.size
        if look.caption:
            self.text(0.05, 0.05 - self._foot, text, size=look.size * SMALL, color="#404040", va="bottom")

    def axes(self, left: float, bottom: float, width: float, height: float, **options: Any) -> Any:
        """Axes in inches from the lower left corner above the caption."""
        x, y = self.fraction(left, bottom)
        box = (round(x, 6), round(y, 6), round(width / self.width, 6), round(height / self.height, 6))
        return self.figure.add_axes(box, **options)

    def fraction(self, x: float, y: float) -> tuple[float, float]:
        """A place in inches as shares of the figure."""
        return x / self.width, (y + self._foot) / self.height

    def text(self, x: float, y: float, text: str, **style: Any) -> Any:
        """Text at a place in inches."""
        style = {"size": self._size, "linespacing": 1.05, **style}
        return self.figure.text(*self.fraction(x, y), text, **style)


def plain_label(label: str) -> str:
    return label.replace("->", "\N{RIGHTWARDS ARROW}")


def label_of(row: FigureRow, look: Look) -> str:
    """The label of a row as a figure has it."""
    return plain_label(row.label if look.full_labels else row.short)


def wrapped_labels(rows: Sequence[FigureRow], look: Look, most: float) -> dict[str, str]:
    """The labels of rows by name, in lines of at most so many inches."""
    return {row.name: wrap(label_of(row, look), most, look.size) for row in rows}


def wrapped_remarks(rows: Sequence[FigureRow], look: Look, most: float) -> dict[str, str]:
    """What has to be said of the runs of rows, by name, in lines of at most so many inches."""
    return {row.name: wrap(ending_remark(row), most, look.size * SMALL) for row in rows if ending_remark(row)}


def widest(texts: Mapping[str, str] | Sequence[str], size: float, bold: bool = False) -> float:
    """Inches of the widest of texts; 0 of none."""
    found = texts.values() if isinstance(texts, Mapping) else texts
    return max((text_width(text, size, bold) for text in found), default=0.0)


def foot_of_axis(look: Look, lines: int) -> float:
    """Inches below axes for its ticks, their labels and a name of so many lines."""
    return TICK + line_height(look.size) * (1 + lines) + 0.06
