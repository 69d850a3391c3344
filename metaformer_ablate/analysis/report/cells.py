"""Tables of the report as plain values; the templates write them as HTML and escape every string."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from metaformer_ablate.analysis.report.collect import RowRef
from metaformer_ablate.analysis.report.spec_runs import SpecRuns
from metaformer_ablate.analysis.tables.columns import format_mean
from metaformer_ablate.analysis.tables.types import TableRow
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.statistics.stats import summarise
from metaformer_ablate.tasks.base import Metric


@dataclass(frozen=True)
class Cell:
    """A cell: text, of which the part before `rest` may lead to another place of the page, and numbers of notes."""

    text: str = ""
    value: float | None = None  # what a number is sorted by; without one it stands last
    number: bool = False
    target: str | None = None  # an id of the page
    rest: str = ""
    marks: Sequence[tuple[int, str]] = ()  # numbers of notes and their ids
    head: bool = False
    style: str | None = None  # CSS classes
    code: bool = False
    span: int | None = None

    @property
    def sorts_by(self) -> str | None:
        """The number beside the text, where the text is not the number."""
        shown = "" if self.value is None else f"{self.value:.12g}"
        same = shown and not self.rest and not self.marks and shown == self.text.replace(",", "")
        return None if not self.number or same else shown


@dataclass(frozen=True)
class Line:
    """A row of a table with the attributes of its element."""

    cells: Sequence[Cell]
    attributes: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """A table: its first `left` columns are text."""

    label: str
    headings: Sequence[str]
    lines: Sequence[Line]
    style: str = "sortable"
    left: int = 1


def number(value: float | None, text: object, **of: object) -> Cell:
    return Cell(str(text), value, number=True, **of)  # type: ignore[arg-type]


def words(text: str, **of: object) -> Cell:
    return Cell(text, **{"style": "text", **of})  # type: ignore[arg-type]


def head(text: str, **of: object) -> Cell:
    return Cell(text, head=True, **{"style": "text", **of})  # type: ignore[arg-type]


def anchor(*parts: str) -> str:
    """An id for names that may hold any character; the same names have the same id in every report."""
    plain = all(re.fullmatch(r"[A-Za-z][\w-]*", part, re.ASCII) for part in parts)
    return ".".join(parts) if plain else f"x.{digest(parts)[:12]}"


def mean_cell(row: TableRow, target: str | None) -> Cell:
    """Mean, spread and status; the mean leads to the runs behind it."""
    shown = format_mean(row)
    first, _, rest = shown.partition(" ") if row.mean is not None else (shown, "", "")
    return number(row.mean, first, target=target, rest=rest, style="whole")


def metric_heading(metrics: Iterable[Metric]) -> str:
    """The heading of a column of values: the metric's, where all are of one."""
    different = set(metrics)
    return different.pop().heading if len(different) == 1 else "Result"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def settings_text(differences: Iterable[tuple[str, str | None, str | None]]) -> str:
    """`train.epochs 1 (not 12), model.norm "none" (not "mln")`."""
    shown = (
        f"{path} {'absent' if here is None else here} (not {'absent' if there is None else there})"
        for path, here, there in differences
    )
    return ", ".join(shown) or "nothing"


def places_text(places: Sequence[RowRef]) -> str:
    """`table5/pool5, pooling_size/pool5 and 2 more`."""
    names = [f"{place.experiment}/{place.row}" for place in places]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def seed_summary(variant: SpecRuns) -> TableRow:
    """Mean, spread and status of a variant by itself, as the table has them of a row."""
    metric = variant.task.reported
    found = (record.value(metric.name) for seed, record in variant.records.items() if seed not in variant.stale)
    summary = summarise([value for value in found if value is not None])
    statuses = {variant.status(seed) for seed in variant.records}
    status = next(iter(statuses)) if len(statuses) == 1 else "partial"
    of = {"n": summary.n, "mean": summary.mean, "std": summary.std, "ci95": summary.ci95, "status": status}
    return TableRow(metric, variant.key, variant.key, "", **of)  # type: ignore[arg-type]
