"""The tables of the report: an experiment under a recipe, and the runs of no table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType

from metaformer_ablate.analysis.report.cells import (
    Cell,
    Grid,
    Line,
    anchor,
    head,
    mean_cell,
    metric_heading,
    number,
    places_text,
    seed_summary,
    settings_text,
    words,
)
from metaformer_ablate.analysis.report.collect import Report, Section
from metaformer_ablate.analysis.report.figures import Shown
from metaformer_ablate.analysis.tables.columns import (
    format_billions,
    format_difference,
    format_estimate,
    format_millions,
    format_p,
    format_printed,
)
from metaformer_ablate.analysis.tables.interactions import interactions_sheet
from metaformer_ablate.analysis.tables.types import Table, TableRow, name_of_test
from metaformer_ablate.errors import RequestError
from metaformer_ablate.statistics.effects import Estimate
from metaformer_ablate.statistics.stats import corrected_over
from metaformer_ablate.tasks.base import Task

# Rows whose mistakes are read, which takes a twentieth of a second each; of more, none are.
MOST_MISTAKES = 100


@dataclass(frozen=True)
class Article:
    """An experiment under a recipe, as the page shows it."""

    id: str
    recipe: str
    recipe_title: str
    part_of: tuple[str, str] | None  # the id and the name of a table that has all its rows
    warnings: Sequence[str]
    results: Grid
    notes: Sequence[tuple[str, int, str]]  # id, number, text
    lines: Sequence[str]  # what the numbers are
    allows: Sequence[str]  # and what they allow
    interactions: tuple[Grid, Sequence[str]] | None
    figures: Sequence[Shown]
    mistakes: tuple[Grid, str] | None
    sets: Sequence[tuple[str, str]]
    commands: Sequence[str]


def experiment_article(section: Section, report: Report, figures: Sequence[Shown]) -> Article:
    table = section.table
    here, recipe, metric = anchor(table.experiment, table.recipe), table.recipe, table.metric
    marks: dict[str, int] = {}
    rows = [_row(row, section, report, marks) for row in table.rows]
    headings = ["Group", "Row", "Params (M)", "MACs (G)", metric.heading, "n", "Difference"]
    headings += ["Effect", "Better", "p", f"Paper {metric.phrase}"]
    findings = [finding.text for finding in table.audit]  # each stands below, with its rows
    command = f"{table.experiment} --recipe {recipe}"
    return Article(
        id=here,
        recipe=recipe,
        recipe_title=report.recipes[recipe],
        part_of=(anchor(section.part_of, recipe), section.part_of) if section.part_of else None,
        warnings=[text for text in table.warnings if not any(finding in text for finding in findings)],
        results=Grid(table.title, headings, rows, "sortable results", left=2),
        notes=[(f"{here}.{number}", number, text) for text, number in marks.items()],
        lines=_lines(table),
        allows=_allows(table),
        interactions=_interactions(section),
        figures=figures,
        mistakes=_mistakes(section, report),
        sets=_sets(section),
        commands=[f"ablate {verb} {command}" for verb in ("table", "plot", "show")],
    )


def _row(row: TableRow, section: Section, report: Report, marks: dict[str, int]) -> Line:
    here, target = anchor(section.table.experiment, section.table.recipe), section.variants.get(row.name)
    delta = row.delta

    def marked(texts: Iterable[str]) -> list[tuple[int, str]]:
        numbers = [marks.setdefault(text, len(marks) + 1) for text in texts]
        return [(number, f"{here}.{number}") for number in numbers]

    audited = (finding.text for finding in section.table.own_findings(row))
    notes = [*section.table.notes_of(row), *(text for text in audited if text not in row.notes)]
    shift, _, interval = format_difference(row, row.metric.digits).partition(" ")
    p = None if delta is None else delta.p
    cells = [
        words(row.group),
        head(row.label, marks=marked(notes)),
        number(row.params, format_millions(row.params, row.frozen_params)),
        number(row.macs, format_billions(row.macs, row.uncounted)),
        mean_cell(row, target),
        number(row.n, row.n, target=target if row.n else None),
        number(delta.mean if delta else None, shift, target=target if delta else None, rest=interval, style="whole"),
        _size(delta.effect if delta else None, "+.2f"),
        _size(delta.better if delta else None, ".2f"),
        number(p, "" if p is None else format_p(p), marks=marked(_about_p(row, section, report)), style="whole"),
        number(row.printed, format_printed(row)),
    ]
    return Line(cells, {"class": "baseline" if row.name == section.table.baseline else None})


def _size(estimate: Estimate | None, style: str) -> Cell:
    return number(None if estimate is None else estimate.value, format_estimate(estimate, style))


def _about_p(row: TableRow, section: Section, report: Report) -> list[str]:
    """Why a row has no p, or where this page compares the same runs with another p. How p is corrected is said once."""
    if row.delta is None:
        return []
    if row.delta.comparisons is None:
        return [f"p: {row.delta.method}"]
    notes = []
    runs = _compared(section, row.name)
    for other in report.sections:
        for twin in other.table.rows if other is not section else ():
            delta = twin.delta
            if delta and delta.p is not None and delta.p != row.delta.p and _compared(other, twin.name) == runs:
                notes.append(
                    f"p: the same runs are compared in {other.table.experiment}, where p is another one, for it is "
                    f"{corrected_over(delta.comparisons or 1)}"
                )
    return notes


def _compared(section: Section, row: str) -> frozenset[str | None]:
    """The two variants that a row's difference is of."""
    return frozenset(section.variants.get(name) for name in (row, section.table.baseline))


def _lines(table: Table) -> list[str]:
    """What holds for every row, and what the numbers are."""
    shared = [*table.shared_notes, *(finding.text for finding in table.audit if table.is_shared(finding))]
    lines = [f"Every row: {note}" for note in dict.fromkeys(shared)]
    if any(row.ci95 or (row.delta and row.delta.ci95) for row in table.rows):
        told = (
            f"{table.metric.label}: mean ± standard deviation over n seeds [95% t interval of the mean]. "
            "Difference: from the baseline, mean over common seeds "
            f"[95% {name_of_test(row.delta for row in table.rows)} t interval]"
        )
        tested = next((row.delta.comparisons for row in table.rows if row.delta and row.delta.comparisons), None)
        lines.append(told + (f"; its p is {corrected_over(tested)}." if tested else "."))
    return lines


def _allows(table: Table) -> list[str]:
    """What the seeds can tell apart, where the spread comes from, and the order of rows against the paper's."""
    lines = [found["text"] for found in (table.resolution, table.spread) if found]
    lines += table.agreement["text"] if table.agreement else []
    lines += [table.seed_counts["text"]] if table.seed_counts else []
    return lines + (table.registration["text"] if table.registration else [])


def _interactions(section: Section) -> tuple[Grid, Sequence[str]] | None:
    """The part of an experiment's interactions; None where it has none."""
    table = section.table
    if not table.interactions:
        return None
    sheet = interactions_sheet(table.title, table.interactions, table.metric.digits, table.audit)
    lines = []
    for each, (label, n, *shown) in zip(table.interactions, sheet.lines, strict=True):
        target = section.variants.get(each.name) if each.n else None
        counted = number(each.n, n, target=target)
        lines.append(Line([head(label), counted, *(Cell(text, style="whole") for text in shown)]))
    return Grid(sheet.title, sheet.headings, lines), sheet.notes


def _mistakes(section: Section, report: Report) -> tuple[Grid, str] | None:
    """What one run of each row gets wrong, as its task tells it: the run of its first seed, from its predictions."""
    shown = {key for other in report.tables for key in other.variants.values()}
    part = _mistakes_part(section.table.task)
    if part is None or len(shown) > MOST_MISTAKES or section.part_of:
        return None
    lines = []
    for row in section.table.rows:
        run = next((run for run in row.runs if run.status == "ok" and run.record is not None), None)
        if run is None:
            continue
        first = [head(row.label), number(run.seed, run.seed, target=f"run-{run.run_id}")]
        try:
            told = part.report_line(run.record)
        except RequestError as error:
            lines.append(Line([*first, words(str(error), span=len(part.REPORT_COLUMNS), style="text wide")]))
            continue
        cells = (words(text, style="text wide") if value is None else number(value, text) for value, text in told)
        lines.append(Line([*first, *cells]))
    if not lines:
        return None
    return Grid(f"Mistakes, {section.table.title}", ["Row", "Seed", *part.REPORT_COLUMNS], lines), part.REPORT_NOTE


def _mistakes_part(task: Task) -> ModuleType | None:
    """The part of a task that tells a report what a run gets wrong; None where the task has none."""
    try:
        return task.part("error_analysis.report")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(task.package):
            raise
        return None


def _sets(section: Section) -> list[tuple[str, str]]:
    """What each row changes, in words of the spec."""
    found = []
    for name, row in section.plan.experiment.rows.items():
        sets = row.sets(section.plan.recipe.name)
        text = ", ".join(f"{path} = {json.dumps(value, ensure_ascii=False)}" for path, value in sets.items())
        found.append((name, text or "nothing"))
    return found


def unplanned_grids(report: Report) -> list[tuple[str, Grid]]:
    """By recipe the runs that belong to no table, each with the planned row that comes closest to it."""
    variants = {variant.key: variant for found in report.variants.values() for variant in found}
    grids = []
    for recipe, leftovers in report.leftovers.items():
        lines = []
        for leftover in leftovers:
            row = seed_summary(variants[leftover.variant])
            cells = [head(settings_text(leftover.differences), style="text wide")]
            cells += [words(places_text(leftover.nearest) or "none"), mean_cell(row, leftover.variant)]
            lines.append(Line([*cells, number(row.n, row.n)]))
        metrics = (variants[leftover.variant].task.reported for leftover in leftovers)
        headings = ["Differs in", "From the row", metric_heading(metrics), "n"]
        grids.append((recipe, Grid(f"Other runs, closest to {recipe}", headings, lines, left=2)))
    return grids
