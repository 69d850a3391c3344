"""Tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metaformer_ablate.analysis.escapes import csv_cell
from metaformer_ablate.analysis.tables.types import Table


def render_csv(table: Table) -> str:
    lines = table.flat()
    return csv_text(list(lines[0]), lines)


def csv_text(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines of cells by column under a heading line."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in line.items()} for line in lines)
    return stream.getvalue()
