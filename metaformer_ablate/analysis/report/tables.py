"""Tables of the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import ModuleType

from metaformer_ablate.analysis.report.collect import Report, Section
from metaformer_ablate.analysis.report.markup import Html, cell, element, escape, grid, items, link, text_cell
from metaformer_ablate.analysis.report.phrases import (
    MOST_MISTAKES,
    joined,
    mean_cell,
    metric_heading,
    places_text,
    section_id,
    seed_summary,
    settings_text,
)
from metaformer_ablate.analysis.tables.columns import (
    format_billions,
    format_difference,
    format_estimate,
    format_millions,
    format_p,
    format_printed,
)
from metaformer_ablate.analysis.tables.interactions import interactions_sheet
from metaformer_ablate.analysis.tables.types import Table, TableRow
from metaformer_ablate.errors import RequestError
from metaformer_ablate.statistics.effects import Estimate
from metaformer_ablate.statistics.stats import corrected_over
from metaformer_ablate.tasks.base import Task


def experiment_section(section: Section, report: Report, figures: list[Html]) -> Html:
    table, here = section.table, section_id(section)
    recipe, metric = table.recipe, table.metric
    marks: dict[str, int] = {}
    rows = [_row(row, section, report, marks) for row in table.rows]
    headings = ["Group", "Row", "Params (M)", "MACs (G)", metric.heading, "n", "Difference"]
    headings += ["Effect", "Better", "p", f"Paper {metric.phrase}"]
    parts = [
        element("h3", "under ", element("code", recipe), " ", element("span", report.recipes[recipe], class_="quiet"))
    ]
    findings = [finding.text for finding in table.audit]  # each stands below, with its rows
    if warnings := [text for text in table.warnings if not any(finding in text for finding in findings)]:
        parts.append(element("div", items(warnings), class_="warning", role="note", aria_label="Warnings"))
    parts.append(grid(table.title, headings, rows, "sortable results", left=2))
    parts.append(_notes(table, here, marks))
    parts += _interactions(section)
    parts += figures
    parts.append(_mistakes(section, report))
    parts.append(_sets(section))
    command = f"{table.experiment} --recipe {recipe}"
    commands = [element("code", f"ablate {verb} {command}") for verb in ("table", "plot", "show")]
    parts.append(element("p", "The same from a terminal: ", *joined(commands, ", "), ".", class_="quiet commands"))
    return element("article", *parts, id=here, data_recipe=recipe)


def _row(row: TableRow, section: Section, report: Report, marks: dict[str, int]) -> Html:
    here, target = section_id(section), section.variants.get(row.name)
    baseline = row.name == section.table.baseline
    delta, digits = row.delta, row.metric.digits

    def marked(texts: Iterable[str]) -> Html:
        numbers = [marks.setdefault(text, len(marks) + 1) for text in texts]
        links = [link(f"{here}.{number}", f"[{number}]", title=f"note {number}") for number in numbers]
        return element("sup", *links, class_="marks") if links else Html("")

    audited = (finding.text for finding in section.table.own_findings(row))
    notes = [*section.table.notes_of(row), *(text for text in audited if text not in row.notes)]
    p = None if delta is None else delta.p
    shift = None if delta is None else format_difference(row, digits).partition(" ")
    cells = [
        text_cell(row.group),
        element("th", element("span", row.label), marked(notes), scope="row", class_="text"),
        cell(row.params, format_millions(row.params, row.frozen_params)),
        cell(row.macs, format_billions(row.macs, row.uncounted)),
        cell(row.mean, mean_cell(row, target), class_="whole"),
        cell(row.n, link(target, row.n) if target and row.n else row.n),
        cell(
            None if delta is None else delta.mean,
            "" if shift is None else link(str(target), shift[0]),
            f" {shift[2]}" if shift and shift[2] else "",
            class_="whole",
        ),
        _size(delta.effect if delta else None, "+.2f"),
        _size(delta.better if delta else None, ".2f"),
        cell(
            p,
            "" if p is None else format_p(p),
            marked(_about_p(row, section, report)),
            class_="whole",
        ),
        cell(row.printed, format_printed(row)),
    ]
    return element("tr", *cells, class_="baseline" if baseline else None)


def _interactions(section: Section) -> list[Html]:
    """The part of an experiment's interactions; none where it has none."""
    table = section.table
    if not table.interactions:
        return []
    sheet = interactions_sheet(table.title, table.interactions, table.metric.digits, table.audit)
    rows = []
    for each, line in zip(table.interactions, sheet.lines, strict=True):
        label, n, *shown = line
        head = element("th", element("span", label), scope="row", class_="text")
        target = section.variants.get(each.name)
        count = cell(each.n, link(target, n) if target and each.n else n)
        rows.append(element("tr", head, count, *(element("td", text, class_="whole") for text in shown)))
    words = (element("p", note, class_="quiet") for note in sheet.notes)
    return [
        element("h4", "Interactions"),
        grid(sheet.title, sheet.headings, rows),
        element("div", *words, class_="below"),
    ]


def _size(estimate: Estimate | None, style: str) -> Html:
    return cell(None if estimate is None else estimate.value, format_estimate(estimate, style))


def _about_p(row: TableRow, section: Section, report: Report) -> list[str]:
    """How the p of a row was corrected, and where this page compares the same runs with another p."""
    if row.delta is None:
        return []
    if row.delta.comparisons is None:
        return [f"p: {row.delta.method}"]
    test = "two-stage" if section.table.seed_counts else "paired"
    notes = [f"p: {test} t over common seeds, {corrected_over(row.delta.comparisons)}"]
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


def _notes(table: Table, here: str, marks: dict[str, int]) -> Html:
    notes = [element("li", text, id=f"{here}.{number}", value=number) for text, number in marks.items()]
    shared = [*table.shared_notes, *(finding.text for finding in table.audit if table.is_shared(finding))]
    lines = [f"Every row: {note}" for note in dict.fromkeys(shared)]
    if any(row.ci95 or (row.delta and row.delta.ci95) for row in table.rows):
        words = (
            f"{table.metric.label}: mean ± standard deviation over n seeds [95% t interval of the mean]. "
            "Difference: to the baseline, mean over common seeds "
            f"[95% {'two-stage' if table.seed_counts else 'paired'} t interval]"
        )
        tested = next((row.delta.comparisons for row in table.rows if row.delta and row.delta.comparisons), None)
        lines.append(words + (f"; its p is {corrected_over(tested)}." if tested else "."))
    lines += [found["text"] for found in (table.resolution, table.spread) if found]
    lines += table.agreement["text"] if table.agreement else []
    lines += [table.seed_counts["text"]] if table.seed_counts else []
    lines += table.registration["text"] if table.registration else []
    listed = [element("ol", *notes, class_="notes")] if notes else []
    return element("div", *listed, *(element("p", line, class_="quiet") for line in lines), class_="below")


def _mistakes(section: Section, report: Report) -> Html:
    """What one run of each row gets wrong, as its task tells it: the run of its first seed, from its predictions."""
    shown = {key for other in report.sections if not other.only_baseline for key in other.variants.values()}
    part = _mistakes_part(section.table.task)
    if part is None or len(shown) > MOST_MISTAKES:
        return Html("")
    lines = []
    for row in section.table.rows:
        run = next((run for run in row.runs if run.status == "ok" and run.record is not None), None)
        if run is None:
            continue
        head = element("th", element("span", row.label), scope="row", class_="text")
        seed = cell(run.seed, link(f"run-{run.run_id}", run.seed))
        try:
            told = part.report_line(run.record)
        except RequestError as error:
            wide = element("td", str(error), colspan=len(part.REPORT_COLUMNS), class_="text wide")
            lines.append(element("tr", head, seed, wide))
            continue
        cells = (
            element("td", text, class_="text wide") if value is None else cell(value, text) for value, text in told
        )
        lines.append(element("tr", head, seed, *cells))
    if not lines:
        return Html("")
    words = element("p", part.REPORT_NOTE, element("code", "ablate errors RUN"), " shows the images.", class_="quiet")
    box = grid(f"Mistakes, {section.table.title}", ["Row", "Seed", *part.REPORT_COLUMNS], lines)
    return element("details", element("summary", "What the rows get wrong"), box, words)


def _mistakes_part(task: Task) -> ModuleType | None:
    """The part of a task that tells a report what a run gets wrong; None where the task has none."""
    try:
        return task.part("error_analysis.report")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(task.package):
            raise
        return None


def _sets(section: Section) -> Html:
    """What each row changes, in words of the spec."""
    lines = []
    for name, row in section.plan.experiment.rows.items():
        sets = row.sets(section.plan.recipe.name)
        text = ", ".join(f"{path} = {json.dumps(value, ensure_ascii=False)}" for path, value in sets.items())
        lines.append(Html(element("code", name) + escape(": " + (text or "nothing"))))
    return element("details", element("summary", "What each row sets"), items(lines))


def unplanned_section(report: Report) -> Html:
    if not report.leftovers:
        return Html("")
    variants = {variant.key: variant for found in report.variants.values() for variant in found}
    parts = []
    for recipe, leftovers in report.leftovers.items():
        rows = []
        for leftover in leftovers:
            row = seed_summary(variants[leftover.variant])
            cells = [element("th", settings_text(leftover.differences), scope="row", class_="text wide")]
            cells += [text_cell(places_text(leftover.nearest) or "none")]
            cells += [
                cell(row.mean, mean_cell(row, leftover.variant), class_="whole"),
                cell(row.n, row.n),
            ]
            rows.append(element("tr", *cells))
        title = element(
            "h3", "closest to ", element("code", recipe), " ", element("span", report.recipes[recipe], class_="quiet")
        )
        metrics = (variants[leftover.variant].task.reported for leftover in leftovers)
        headings = ["Differs in", "From the row", metric_heading(metrics), "n"]
        box = grid(f"Other runs, closest to {recipe}", headings, rows, left=2)
        parts.append(element("article", title, box, data_recipe=recipe))
    words = (
        "Runs that belong to no table, such as those with overrides: each with the planned row that it differs from in "
        "the fewest fields. They are in no mean above. With their overrides, ",
        element("code", "ablate table EXPERIMENT KEY.PATH=VALUE"),
        " compares them with their own baseline.",
    )
    return element("section", element("h2", "Other runs"), element("p", *words), *parts, id="other")
