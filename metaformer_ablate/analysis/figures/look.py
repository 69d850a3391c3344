"""How large a figure is and what is written on it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from metaformer_ablate.drawing.canvas import FONT
from metaformer_ablate.errors import RequestError

_INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72.27}
WIDTHS = (2.0, 20.0)  # inches
FONTS = (4.0, 40.0)  # points


@dataclass(frozen=True)
class Look:
    """The size and the words of a figure.

    Args:
        width: inches, 2 to 20. The default is the text of a page; 3.3 is a column of two.
        font: points, 4 to 40; by default 8, and 7 where the figure is narrow.
        caption: whether the caption stands in the figure, at its foot.
        full_labels: the rows' full labels instead of their short ones.
    """

    width: float = 6.9
    font: float | None = None
    caption: bool = False
    full_labels: bool = False

    def __post_init__(self) -> None:
        for name, value, (low, high), unit in (
            ("width", self.width, WIDTHS, "in"),
            ("font size", self.size, FONTS, "pt"),
        ):
            if not low <= value <= high:
                raise RequestError(f"the {name} is {value:g} {unit}; allowed: {low:g} to {high:g} {unit}")

    @property
    def size(self) -> float:
        """Points of the letters."""
        return self.font if self.font is not None else FONT if self.width >= 5 else FONT - 1

    @property
    def times(self) -> float:
        """How many times as large as usual lines and markers are."""
        return self.size / FONT

    @property
    def narrow(self) -> bool:
        """Whether there is room for one panel only: the width is less than 42 times the size of the letters."""
        return self.width * 72 / self.size < 42


PAGE = Look()


def inches(text: str, option: str) -> float:
    """A length such as `3.3in`, `84mm`, `8.4cm` or `240pt` in inches. Raises RequestError for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(in|cm|mm|pt)", text.strip())
    if found is None:
        raise RequestError(f"{option}: {text!r} is not a length; allowed: a number with in, cm, mm or pt, as 3.3in")
    return float(found[1]) * _INCHES[found[2]]
