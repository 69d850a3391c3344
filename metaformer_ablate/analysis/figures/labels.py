"""Where the labels of points stand: beside their point, or in a column at the right with leaders that do not cross.

All lengths are inches from the lower left corner of the axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

MARKER = 0.07  # the side of a marker with some air
LEADER = 0.14  # from the axes to the column

Box = tuple[float, float, float, float]  # left, bottom, right, top
Line = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Spot:
    """A point, the room that its label takes, and the boxes of its bars."""

    name: str
    x: float
    y: float
    width: float
    height: float
    bars: tuple[Box, ...] = ()


@dataclass(frozen=True)
class Placed:
    """The left end and the middle of each label that stands beside its point, and the middle of each in the column."""

    beside: Mapping[str, tuple[float, float]]
    column: Mapping[str, float]


def place_labels(
    spots: Sequence[Spot],
    width: float,
    height: float,
    lines: Sequence[Line] = (),
    column: bool = True,
    times: float = 1,
) -> Placed | None:
    """Places for all labels on axes of a size, none of them on `lines`; without a column None where not all find room
    beside their points. Markers are so many times as large as usual."""
    beside = _beside(spots, width, height, lines, MARKER * times)
    if not column and len(beside) < len(spots):
        return None
    while True:
        rest = [spot for spot in spots if spot.name not in beside]
        centres = _column(rest, width, height)
        leaders = [((spot.x, spot.y), (width + LEADER, centres[spot.name])) for spot in rest]
        hit = {name for name, box in beside.items() if any(_meets(leader, box) for leader in leaders)}
        if not hit:
            return Placed({name: (box[0], (box[1] + box[3]) / 2) for name, box in beside.items()}, centres)
        beside = {name: box for name, box in beside.items() if name not in hit}


def _beside(spots: Sequence[Spot], width: float, height: float, lines: Sequence[Line], marker: float) -> dict[str, Box]:
    """Boxes of labels that find room beside their points; those of points that stand alone are placed first."""
    taken = [box for spot in spots for box in (*spot.bars, _around(spot, marker / 2))]
    nearest = {
        spot.name: min((abs(spot.x - o.x) + abs(spot.y - o.y) for o in spots if o is not spot), default=0.0)
        for spot in spots
    }
    found: dict[str, Box] = {}
    for spot in sorted(spots, key=lambda spot: (-nearest[spot.name], spot.name)):
        bottom = spot.y - spot.height / 2
        for x in (spot.x + marker, spot.x - marker - spot.width):
            box = (x, bottom, x + spot.width, bottom + spot.height)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
            free = not any(_overlap(box, other) for other in (*taken, *found.values()))
            # Beside another point it would be taken for that one's.
            near = (box[0] - 2 * marker, box[1], box[2] + 2 * marker, box[3])
            free = free and not any(_overlap(near, (o.x, o.y, o.x, o.y)) for o in spots if o is not spot)
            if inside and free and not any(_meets(line, box) for line in lines):
                found[spot.name] = box
                break
    return found


def _around(spot: Spot, half: float) -> Box:
    return spot.x - half, spot.y - half, spot.x + half, spot.y + half


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _column(spots: Sequence[Spot], width: float, height: float) -> dict[str, float]:
    """The middle of each label, from the top as the points stand; two whose leaders cross change places."""
    order = sorted(spots, key=lambda spot: (-spot.y, spot.x, spot.name))
    for _ in range(len(spots) ** 2 + 1):
        centres = spread_apart([s.y for s in order], [s.height for s in order], 0.0, height)
        lines = [((s.x, s.y), (width + LEADER, y)) for s, y in zip(order, centres, strict=True)]
        crossed = next(((i, j) for i, j in combinations(range(len(order)), 2) if _cross(lines[i], lines[j])), None)
        if crossed is None:
            break
        i, j = crossed
        order[i], order[j] = order[j], order[i]
    return {spot.name: y for spot, y in zip(order, centres, strict=True)}


def _side(line: Line, at: tuple[float, float]) -> float:
    (x, y), (x2, y2) = line
    return (x2 - x) * (at[1] - y) - (y2 - y) * (at[0] - x)


def _cross(a: Line, b: Line) -> bool:
    """Whether two lines cross between their ends; to touch is not to cross."""
    least = 1e-9
    return (
        min(_side(a, b[0]), _side(a, b[1])) < -least
        and max(_side(a, b[0]), _side(a, b[1])) > least
        and min(_side(b, a[0]), _side(b, a[1])) < -least
        and max(_side(b, a[0]), _side(b, a[1])) > least
    )


def _meets(line: Line, box: Box) -> bool:
    """Whether a line goes through a box."""
    left, bottom, right, top = box
    return _cross(line, ((left, bottom), (right, top))) or _cross(line, ((left, top), (right, bottom)))


def spread_apart(wished: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Centres between low and high, from top to bottom, near to the wished ones: labels that touch move as one."""
    blocks: list[list[float]] = []  # [centre wished on average, size, labels]
    for wish, size in zip(wished, sizes, strict=True):
        blocks.append([wish, size, 1])
        while True:
            block = blocks[-1]
            block[0] = min(max(block[0], low + block[1] / 2), high - block[1] / 2)
            if len(blocks) == 1 or blocks[-2][0] - blocks[-2][1] / 2 >= block[0] + block[1] / 2:
                break
            above = blocks[-2]
            total = above[2] + block[2]
            blocks[-2:] = [[(above[0] * above[2] + block[0] * block[2]) / total, above[1] + block[1], total]]
    centres: list[float] = []
    for centre, size, labels in blocks:
        top = centre + size / 2
        for _ in range(int(labels)):
            centres.append(top - sizes[len(centres)] / 2)
            top -= sizes[len(centres) - 1]
    return centres
