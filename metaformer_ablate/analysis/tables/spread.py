"""Where the spread of a table's differences comes from: its runs, as statistics read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.status import RunState
from metaformer_ablate.statistics.power import Pairs
from metaformer_ablate.statistics.spread import RowRuns, where_it_comes_from
from metaformer_ablate.tasks.base import Metric, Task

if TYPE_CHECKING:
    import numpy as np

Runs = Mapping[str, Sequence[RunState]]


def spread_of(
    runs: Runs, base: str, pairs: Mapping[str, Pairs], resolution: Mapping[str, Any] | None, task: Task, metric: Metric
) -> dict[str, Any] | None:
    """The parts of the spread, from the predictions and histories of the runs behind `pairs`.

    A part that records do not hold is left out: predictions that cannot be read, or that are not what the metric is
    the share of; histories that lack the metric. None where the table has no resolution.
    """
    if resolution is None:
        return None
    rows, read = [], _Reader(task, metric)
    for name, found in pairs.items():
        if len(found) > 1:
            here, there = (_records(runs[row]) for row in (name, base))
            sides = [(here[seed], there[seed]) for seed in here if seed in there]
            rows.append(RowRuns(found, read.halfway(sides), read.right(sides)))
    return where_it_comes_from(rows, resolution["n"], metric.difference_unit, metric.digits)


def _records(states: Sequence[RunState]) -> dict[int, Record]:
    return {state.seed: state.record for state in states if state.status == "ok" and state.record is not None}


class _Reader:
    """Reads what is beside the numbers of runs, each of the baseline's once."""

    def __init__(self, task: Task, metric: Metric):
        self.task, self.metric = task, metric
        self._right: dict[str, np.ndarray | None] = {}
        self._halfway: dict[str, float | None] = {}

    def right(self, sides: Sequence[tuple[Record, Record]]) -> tuple[np.ndarray, np.ndarray] | None:
        """[seeds, images] of the row and of the baseline."""
        import numpy as np

        here, there = ([self._right_of(record) for record in side] for side in zip(*sides, strict=True))
        known = [right for right in (*here, *there) if right is not None]
        if len(known) < 2 * len(sides) or len({len(right) for right in known}) > 1:
            return None
        return np.stack(known[: len(sides)]), np.stack(known[len(sides) :])

    def halfway(self, sides: Sequence[tuple[Record, Record]]) -> Pairs | None:
        """The metric of both after half of the training."""
        values = [(self._halfway_of(row), self._halfway_of(baseline)) for row, baseline in sides]
        known = [(row, baseline) for row, baseline in values if row is not None and baseline is not None]
        return known if len(known) == len(values) else None

    def _right_of(self, record: Record) -> np.ndarray | None:
        if record.run_id not in self._right:
            self._right[record.run_id] = self._read_right(record)
        return self._right[record.run_id]

    def _read_right(self, record: Record) -> np.ndarray | None:
        if self.metric is not self.task.reported or self.metric.unit != "%":
            return None
        try:
            right = self.task.part("predictions").per_image(record.predictions())
        except RequestError:
            return None
        if right is None or right.dtype != bool or not len(right):
            return None
        value = record.value(self.metric.name)
        return right if value is not None and abs(100 * float(right.mean()) - value) < 1e-3 else None

    def _halfway_of(self, record: Record) -> float | None:
        if record.run_id not in self._halfway:
            self._halfway[record.run_id] = self._read_halfway(record)
        return self._halfway[record.run_id]

    def _read_halfway(self, record: Record) -> float | None:
        try:
            lines = record.history()
        except RequestError:
            return None
        column = f"val_{self.metric.name}"
        # Of an odd number of epochs the one before the middle.
        return lines[len(lines) // 2 - 1].get(column) if len(lines) > 1 else None
