"""How rows look in a figure, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from metaformer_ablate.analysis.figures.data import FigureData, FigureRow
from metaformer_ablate.drawing.canvas import COLOURS

# Groups differ in their marker too, for print in grey. Black is the baseline's.
MARKERS = ("o", "s", "D", "P", "X", "p", "h")


def format_number(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")


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


def seed_counts(data: FigureData) -> list[int]:
    """The different numbers of seeds that count, of rows that have any."""
    return sorted({row.n for row in data.rows if row.n})


def of_seeds(data: FigureData) -> str:
    """`5 seeds`, `2 to 5 seeds`; empty where there are none."""
    counts = seed_counts(data)
    if not counts:
        return ""
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} seed" + ("" if counts == [1] else "s")


def seeds_remark(data: FigureData) -> str:
    return f"{of_seeds(data)} per row." if seed_counts(data) else "No run has a result yet."


def hollow_remark(intervals: Iterable[Any]) -> str:
    return "" if all(intervals) else "Hollow: no interval (one seed, or seeds with equal results)."


def break_remark(breaks: Sequence[Any]) -> str:
    return "Beyond // the axis has a coarser scale." if breaks else ""
