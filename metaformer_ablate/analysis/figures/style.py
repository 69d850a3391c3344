"""How rows look in a figure, and what is said of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from metaformer_ablate.analysis.figures.data import FigureData, FigureRow
from metaformer_ablate.drawing.canvas import COLOURS, new_figure

# Groups differ in their marker too, for print in grey. Black is the baseline's.
MARKERS = ("o", "s", "D", "P", "X", "p", "h")  # triangles are for what is off the scale


_WIDTH = 7.2  # inches: the text of a page


LINE_HEIGHT = 0.135  # inches between two lines of text


class Page:
    """A figure of the page's width with its caption at the foot."""

    def __init__(self, data: FigureData, height: float, caption: Sequence[str]):
        words = " ".join([f"{data.experiment} under {data.recipe}", *data.overrides]) + "."
        lines = textwrap.wrap(" ".join([words, *(text for text in caption if text)]), 136)
        foot = 0.07 + LINE_HEIGHT * 0.85 * len(lines)
        self.figure = new_figure(_WIDTH, height + foot)
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


def with_unit(words: str, unit: str) -> str:
    """`Difference here (points)`."""
    return f"{words} ({unit})" if unit else words


def row_styles(data: FigureData) -> dict[str, dict[str, Any]]:
    """Colour and marker of each row: those of its group; the baseline's own."""
    others = dict.fromkeys(row.group for row in data.rows if row.name != data.baseline)
    by_group = {
        group: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[1 + i % (len(MARKERS) - 1)]}
        for i, group in enumerate(others)
    }
    baseline = {"color": "black", "marker": "o"}
    return {row.name: baseline if row.name == data.baseline else by_group[row.group] for row in data.rows}


def ending_remark(row: FigureRow) -> str:
    """`2 of 3 diverged, at chance`: what of a row's runs is not as it should be; empty where all is."""
    if not row.seeds:
        return "not applicable"
    planned = sum(map(len, row.seeds.values()))
    parts = []
    for status, seeds in row.seeds.items():
        if status != "ok":
            parts.append(status if len(seeds) == planned else f"{len(seeds)} of {planned} {status}")
    if chance := len(row.at_chance):
        parts.append("at chance" if chance == row.n else f"{chance} of {planned} at chance")
    return ", ".join(parts)


def seeds_remark(data: FigureData) -> str:
    counts = sorted({row.n for row in data.rows if row.n})
    if not counts:
        return "No run has a result yet."
    if len(counts) == 1:
        return f"{counts[0]} seed{'s' if counts[0] > 1 else ''} a row."
    return f"{counts[0]} to {counts[-1]} seeds a row."


def hollow_remark(intervals: Iterable[Any]) -> str:
    if all(intervals):
        return ""
    return "Hollow: no interval, being of one seed or of seeds that all gave the same."
