"""How much room text takes, before it is drawn."""

from __future__ import annotations

from functools import cache


@cache
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Inches of the longest line of a text of so many points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    lines = text.split("\n")
    return max(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in lines) / 72


def line_height(size: float) -> float:
    """Inches between two lines of text of so many points."""
    return 1.22 * size / 72


def text_height(text: str, size: float) -> float:
    """Inches of a text of so many points."""
    return line_height(size) * (text.count("\n") + 1)


def wrap(text: str, width: float, size: float) -> str:
    """A text of so many points in lines no longer than so many inches; a longer word stands alone."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
