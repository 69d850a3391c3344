"""Axes that hold every row, and points that are off them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from metaformer_ablate.analysis.figures.style import format_number
from metaformer_ablate.tasks.base import Metric


@dataclass(frozen=True)
class Scale:
    """The part of an axis that is drawn. What lies outside is drawn at its edge, with its number beside it."""

    low: float
    high: float

    @classmethod
    def of(
        cls,
        metric: Metric,
        values: Sequence[float],
        intervals: Sequence[Sequence[float] | None] = (),
        zero: bool = False,
    ) -> Scale:
        """Leaves out what lies far from the middle half of the values: a row that collapsed would flatten the others.

        The rule is Tukey's far fence (three times the distance between the quartiles); intervals more than three times
        as wide as the middle one are cut.
        """
        kept = list(values)
        if len(values) >= 3:
            low, _, high = quantiles(values, n=4, method="inclusive")
            reach = 3 * max(high - low, 50 * 10**-metric.digits)
            kept = [value for value in values if low - reach <= value <= high + reach]
        widths = [pair[1] - pair[0] for pair in intervals if pair]
        for value, pair in zip(values, intervals, strict=False):
            if pair and value in kept and pair[1] - pair[0] <= 3 * median(widths):
                kept += pair
        kept += [0.0] if zero or not kept else []
        margin = 0.05 * (max(kept) - min(kept)) or 0.5
        return cls(min(kept) - margin, max(kept) + margin)

    @classmethod
    def all_of(cls, values: Sequence[float]) -> Scale:
        """Leaves nothing out."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.5
        return cls(low - margin, high + margin)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)


def draw_point(
    axes: Any,
    scale: Scale,
    value: float,
    ci95: Sequence[float] | None,
    y: float,
    style: dict[str, Any],
    digits: int,
) -> None:
    """A dot with its horizontal interval, hollow without one; off the scale a triangle at the edge and the number."""
    colour = style["color"]
    if value not in scale:
        left = value < scale.low
        edge = scale.low if left else scale.high
        axes.plot(edge, y, marker="<" if left else ">", color=colour, clip_on=False)
        axes.annotate(
            format_number(value, digits),
            (edge, y),
            (5 if left else -5, 0),
            textcoords="offset points",
            color=colour,
            size=7,
            ha="left" if left else "right",
            va="center_baseline",
        )
        return
    if ci95:
        axes.plot([scale.clip(end) for end in ci95], [y, y], color=colour, solid_capstyle="butt")
        for end, marker in zip(ci95, "<>", strict=True):
            if end not in scale:
                axes.plot(scale.clip(end), y, marker=marker, color=colour, markersize=2.5, clip_on=False)
    face = colour if ci95 else "white"
    axes.plot(value, y, color=colour, marker=style["marker"], markerfacecolor=face, clip_on=False)
