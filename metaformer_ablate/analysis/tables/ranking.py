"""The columns of a table whose orders of rows are compared: what was measured, and what the paper prints."""

from __future__ import annotations

from collections.abc import Sequence

from metaformer_ablate.analysis.tables.types import TableRow
from metaformer_ablate.statistics.agreement import RankedColumn


def measured_column(name: str, rows: Sequence[TableRow], first: int | None = None) -> RankedColumn:
    """The means of a table's rows. Where a seed diverged, the mean is of the fortunate ones and is left out."""
    left_out = {}
    for row in rows:
        if diverged := [str(run.seed) for run in row.runs if run.status == "diverged"]:
            left_out[row.name] = f"diverged: seed {', '.join(diverged)}"
        elif row.mean is None:
            left_out[row.name] = "no run that counts"
    # Equal counts may differ in the last digit of their mean, which is no order.
    values = {row.name: round(row.mean, 9) for row in rows if row.mean is not None and row.name not in left_out}
    return RankedColumn(name, values, {row.name: row.values() for row in rows}, left_out, first)


def paper_column(rows: Sequence[TableRow], metric: str) -> RankedColumn:
    """The paper's numbers of a metric, by its name, for the rows that have one."""
    return RankedColumn("paper", {row.name: row.paper[metric] for row in rows if row.paper.get(metric) is not None})
