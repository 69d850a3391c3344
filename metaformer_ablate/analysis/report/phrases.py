"""Short pieces that all parts of the report say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from metaformer_ablate.analysis.report.collect import RowRef, Section, SpecRuns
from metaformer_ablate.analysis.report.markup import Html, anchor, escape, link
from metaformer_ablate.analysis.tables.columns import format_mean
from metaformer_ablate.analysis.tables.types import TableRow
from metaformer_ablate.statistics.stats import summarise
from metaformer_ablate.tasks.base import Metric

# Rows whose mistakes are read, which takes a twentieth of a second each; of more, none are.
MOST_MISTAKES = 100


# Points of curves in the whole page, 25 bytes each, and at most and at least in one curve.
CURVE_POINTS, MOST_POINTS, FEWEST_POINTS = 250_000, 200, 12


def settings_text(differences: Iterable[tuple[str, str | None, str | None]]) -> str:
    """`train.epochs 1 (not 12), model.norm "none" (not "mln")`."""
    shown = (
        f"{path} {'absent' if here is None else here} (not {'absent' if there is None else there})"
        for path, here, there in differences
    )
    return ", ".join(shown) or "nothing"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def places_text(places: Sequence[RowRef]) -> str:
    names = [f"{place.experiment}/{place.row}" for place in places]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def mean_cell(row: TableRow, target: str | None) -> Html:
    """Mean, spread and status; the mean is linked to the runs behind it."""
    shown = format_mean(row)
    if row.mean is None or target is None:
        return Html(escape(shown)) if target is None else link(target, shown)
    first, _, rest = shown.partition(" ")
    return Html(link(target, first) + escape(f" {rest}" if rest else ""))


def joined(parts: Sequence[Html], between: str) -> list[object]:
    return [piece for i, part in enumerate(parts) for piece in ((between, part) if i else (part,))]


def section_id(section: Section) -> str:
    return anchor(section.table.experiment, section.table.recipe)


def seed_summary(variant: SpecRuns) -> TableRow:
    """Mean, spread and status of a variant by itself, as the table has them of a row."""
    metric = variant.task.reported
    found = (record.value(metric.name) for record in variant.records.values())
    summary = summarise([value for value in found if value is not None])
    statuses = {record.status for record in variant.records.values()}
    status = next(iter(statuses)) if len(statuses) == 1 else "partial"
    of = {"n": summary.n, "mean": summary.mean, "std": summary.std, "ci95": summary.ci95, "status": status}
    return TableRow(metric, variant.key, variant.key, "", **of)  # type: ignore[arg-type]


def metric_heading(metrics: Iterable[Metric]) -> str:
    """The heading of a column of values: the metric's, where all are of one."""
    different = set(metrics)
    return different.pop().heading if len(different) == 1 else "Result"
