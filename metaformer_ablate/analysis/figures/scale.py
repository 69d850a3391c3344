"""Axes that hold every row: what lies far from the others stands beyond a break, in a coarser scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from metaformer_ablate.analysis.figures.style import format_number
from metaformer_ablate.drawing.canvas import GREY
from metaformer_ablate.tasks.base import Metric

FAR = 1.5  # rows are far where the empty stretch before them is so many times as long as all others take
WIDE = 3.0  # an interval is wide that is so many times as long as the middle one
BEYOND = 0.2  # share of an axis beyond a break
GAP = 0.04  # share of an axis that a break takes where nothing lies in it
PAD = 0.05  # share of a stretch left free at its ends

Span = tuple[float, float, float]  # a value and the ends of its interval
Interval = Sequence[float] | None


@dataclass(frozen=True)
class Scale:
    """An axis. `knots` are (value, place from 0 to 1) in order; between two of them it is linear.

    `low` and `high` are the ends of the stretch in which nearly all rows lie.
    """

    knots: tuple[tuple[float, float], ...]
    low: float
    high: float

    @classmethod
    def of(
        cls, metric: Metric, values: Sequence[float], intervals: Sequence[Interval] = (), zero: bool = False
    ) -> Scale:
        """A scale that holds all values and their whole intervals, and 0 if so asked."""
        pairs = [(pair[0], pair[1]) if pair else None for pair in intervals] or [None] * len(values)
        middle = median([pair[1] - pair[0] for pair in pairs if pair] or [0.0])
        usual: list[Span] = [(0.0, 0.0, 0.0)] if zero or not values else []
        wide: list[Span] = []
        for value, pair in zip(values, pairs, strict=True):
            low, high = pair or (value, value)
            span = (value, low, high)
            (wide if pair and pair[1] - pair[0] > WIDE * middle else usual).append(span)
        usual += [(value, value, value) for value, _, _ in wide]
        near = _near(usual, 50 * 10**-metric.digits)
        far = [span for span in usual if span not in near]
        of_near = [span for span in wide if (span[0],) * 3 in near]
        low, high = _with_wide(min(s[1] for s in near), max(s[2] for s in near), of_near)
        below = [s for s in (*far, *wide) if s[1] < low]
        above = [s for s in (*far, *wide) if s[2] > high]
        return cls._broken(low, high, below, above)

    @classmethod
    def all_of(cls, values: Sequence[float]) -> Scale:
        """Without a break, from and to round values where these are near."""
        from matplotlib.ticker import MaxNLocator

        low, high = min(values, default=0.0), max(values, default=1.0)
        steps = MaxNLocator(nbins=4, steps=[1, 2, 5, 10]).tick_values(low, high)
        spare = 0.15 * (high - low)
        low = next((step for step in steps if low - spare <= step <= low), low)
        high = next((step for step in steps if high <= step <= high + spare), high)
        return cls._broken(float(low), float(high), [], [])

    @classmethod
    def around(cls, one: Scale, other: Scale) -> Scale:
        """Holds what both hold: for two axes of one scale."""
        low, high = min(one.low, other.low), max(one.high, other.high)
        beyond = [stretch for scale in (one, other) for stretch in scale.beyond]
        below = [(start, start, min(end, low)) for start, end in beyond if start < low]
        above = [(end, max(start, high), end) for start, end in beyond if end > high]
        return cls._broken(low, high, below, above, 0)

    @classmethod
    def _broken(cls, low: float, high: float, below: Sequence[Span], above: Sequence[Span], pad: float = PAD) -> Scale:
        """A scale whose main stretch is from low to high, with what lies below and above beyond breaks."""
        margin = (high - low) * pad or (0.0 if not pad else 0.1 * abs(high) or 0.5)
        start, end = low - margin, high + margin
        below, above = [s for s in below if s[1] < start], [s for s in above if s[2] > end]
        first, last = 0.0, 1.0
        before: list[tuple[float, float]] = []
        after: list[tuple[float, float]] = []
        # What reaches the main stretch goes on from it: a break without a gap.
        if below:
            bottom, top = min(s[1] for s in below), min(max(s[2] for s in below), low)
            more = (top - bottom) * 3 * pad or (high - low) * pad or (end - start) * pad
            gap = top + more < start
            first = BEYOND + GAP * gap
            before = [(bottom - more, 0.0)] + [(top + more, BEYOND)] * gap
        if above:
            bottom, top = max(min(s[1] for s in above), high), max(s[2] for s in above)
            more = (top - bottom) * 3 * pad or (high - low) * pad or (end - start) * pad
            gap = bottom - more > end
            last = 1 - BEYOND - GAP * gap
            after = [(bottom - more, 1 - BEYOND)] * gap + [(top + more, 1.0)]
        knots = [*before, (start, first), (end, last), *after]
        return cls(tuple(knots), start, end)

    @property
    def ends(self) -> tuple[float, float]:
        return self.knots[0][0], self.knots[-1][0]

    @property
    def beyond(self) -> list[tuple[float, float]]:
        """The stretches below and above the main one, as far as there are any: what lies between them is empty."""
        values = [value for value, _ in self.knots]
        return [values[:2]] * (values[0] < self.low) + [values[-2:]] * (values[-1] > self.high)  # type: ignore[return-value]

    @property
    def breaks(self) -> list[float]:
        """The places where the scale changes."""
        return [
            (self.place(high) + self.place(self.low)) / 2
            if high <= self.low
            else (self.place(low) + self.place(self.high)) / 2
            for low, high in self.beyond
        ]

    def place(self, value: float) -> float:
        """Where a value stands along the axis: from 0 to 1."""
        import numpy as np

        values, places = zip(*self.knots, strict=True)
        return float(np.interp(value, values, places))

    def ticks(self, length: float, width: Callable[[str], float]) -> list[tuple[float, str]]:
        """Round values with their labels for an axis of so many inches, on which a label takes `width`."""
        found: list[tuple[float, str]] = []
        taken: list[tuple[float, float]] = []
        for stretch, air in *((stretch, 1.15) for stretch in self.beyond), ((self.low, self.high), 1.35):
            room = (self.place(stretch[1]) - self.place(stretch[0])) * length
            for value, text in _round_values(*stretch, room / air, width):
                half, at = width(text) / 2 + 0.02, self.place(value) * length
                if all(at + half <= a or at - half >= b for a, b in taken):
                    found.append((value, text))
                    taken.append((at - half, at + half))
        return sorted(found)

    def set_on(self, axes: Any, which: str, length: float, width: Callable[[str], float]) -> None:
        """Makes it the scale of the axis `x` or `y` of axes that is so many inches long, with ticks and breaks."""
        import numpy as np

        values, places = zip(*self.knots, strict=True)
        forward, backward = (lambda x: np.interp(x, values, places)), (lambda x: np.interp(x, places, values))
        getattr(axes, f"set_{which}scale")("function", functions=(forward, backward))
        getattr(axes, f"set_{which}lim")(*self.ends)
        ticks = self.ticks(length, width)
        getattr(axes, f"set_{which}ticks")([value for value, _ in ticks], [text for _, text in ticks])
        for place in self.breaks:
            _draw_break(axes, which, place, length)


def _near(spans: Sequence[Span], least: float) -> list[Span]:
    """What remains without rows that lie far from most others, which are at least two thirds of all, and three."""
    near = sorted(spans, key=lambda s: (s[1], s[2]))
    while True:
        cuts = []
        for i in range(1, len(near)):
            below, above = near[:i], near[i:]
            many, few = (below, above) if len(below) > len(above) else (above, below)
            gap = above[0][1] - max(s[2] for s in below)
            takes = max(max(s[2] for s in many) - min(s[1] for s in many), least)
            if len(many) >= 3 and len(many) >= 2 * len(few) and gap > FAR * takes:
                cuts.append((gap / takes, many))
        if not cuts:
            return near
        near = max(cuts, key=lambda cut: cut[0])[1]


def _with_wide(low: float, high: float, wide: Sequence[Span]) -> tuple[float, float]:
    """The ends of a stretch that also holds the wide intervals, where these do not make it twice as long."""
    ends = (min(s[1] for s in wide), max(s[2] for s in wide)) if wide else (low, high)
    longest = 2 * (high - low)
    if max(high, ends[1]) - min(low, ends[0]) <= longest:
        return min(low, ends[0]), max(high, ends[1])
    return low, high


def _round_values(low: float, high: float, room: float, width: Callable[[str], float]) -> list[tuple[float, str]]:
    """Round values between two others, as many as can be read in so many inches, with their labels; at least one."""
    from matplotlib.ticker import MaxNLocator

    for most in range(8, 0, -1):
        found = MaxNLocator(nbins=most, steps=[1, 2, 5, 10], min_n_ticks=1).tick_values(low, high)
        values = [float(value) + 0.0 for value in found if low <= value <= high]
        digits = max((_decimals(value, high - low) for value in values), default=0)
        labels = [format_number(value, digits) for value in values]
        if values and sum(map(width, labels)) <= room:
            return list(zip(values, labels, strict=True))
    digits = next((d for d in range(6) if low <= round((low + high) / 2, d) <= high), 6)
    value = round((low + high) / 2, digits)
    return [(value, format_number(value, digits))]


def _decimals(value: float, extent: float) -> int:
    """Decimals that show a value on a stretch of so much."""
    return next((d for d in range(7) if abs(round(value, d) - value) < 1e-6 * extent), 7)


def _draw_break(axes: Any, which: str, place: float, length: float) -> None:
    """Two strokes across an axis of so many inches, at a place from 0 to 1 along it, where the scale changes."""
    ends, across = [place - 0.025 / length, place + 0.025 / length], [0.0, 0.0]
    xs, ys = (ends, across) if which == "x" else (across, ends)
    stroke = [(-0.5, -1), (0.5, 1)] if which == "x" else [(-1, -0.5), (1, 0.5)]
    of = {"transform": axes.transAxes, "clip_on": False, "zorder": 5}
    axes.plot(xs, ys, color="white", linewidth=2.5, solid_capstyle="butt", **of)
    axes.plot(xs, ys, color=GREY, linestyle="none", marker=stroke, markersize=5, markeredgewidth=0.7, **of)
