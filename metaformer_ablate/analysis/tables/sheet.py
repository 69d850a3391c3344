"""A table as cells, before a format is chosen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaformer_ablate.analysis.tables.columns import Column, Row, columns_of
from metaformer_ablate.analysis.tables.types import Delta, ImageTest, Table, name_of_test
from metaformer_ablate.statistics.effects import probability_better
from metaformer_ablate.statistics.images import FLOOR_P, MCNEMAR
from metaformer_ablate.statistics.stats import corrected_over


@dataclass
class Sheet:
    """What is printed: rows, the columns that make cells of them, and the lines below.

    `marks` has the numbers of its footnotes for each row, `explanations` the lines that have no number.
    """

    title: str
    rows: Sequence[Row]
    columns: Mapping[str, Column]
    digits: int
    marks: Sequence[Sequence[int]]
    footnotes: Sequence[tuple[int, str]]
    explanations: Sequence[str]
    run_ids: Sequence[Sequence[str]] = ()  # behind each row
    narrow: Sequence[tuple[str, Column | None]] = ()  # what gives way where room is scarce, to a shorter column or none

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.columns.values()]

    @property
    def notes(self) -> list[str]:
        return [*(f"[{number}] {note}" for number, note in self.footnotes), *self.explanations]

    def with_short_notes(self, command: str) -> Sheet:
        """The sheet with the first sentence of each note, and a line that says so where any has more."""
        footnotes = [(number, _first_sentence(note)) for number, note in self.footnotes]
        explanations = [_first_sentence(note) for note in self.explanations]
        if footnotes != list(self.footnotes) or explanations != list(self.explanations):
            explanations.append(f"Notes are shortened; `ablate {command} --notes` shows them whole.")
        return replace(self, footnotes=footnotes, explanations=explanations)

    @property
    def lines(self) -> list[list[str]]:
        lines = []
        for row, marks in zip(self.rows, self.marks, strict=True):
            cells = [column.of(row, self.digits) for column in self.columns.values()]
            cells[self.labels] += f" [{','.join(map(str, marks))}]" if marks else ""
            lines.append(cells)
        return lines

    @property
    def labels(self) -> int:
        """The place of the column that names the rows and carries their marks."""
        names = list(self.columns)
        return next((names.index(name) for name in ("row", "short", "name") if name in names), 0)

    def groups(self) -> list[tuple[str, list[int]]] | None:
        """Groups and the places of their rows, where the groups are asked for and each stands together."""
        groups: list[tuple[str, list[int]]] = []
        for i, row in enumerate(self.rows):
            if not groups or groups[-1][0] != row.group:
                groups.append((row.group, []))
            groups[-1][1].append(i)
        apart = len({name for name, _ in groups}) < len(groups)
        return None if "group" not in self.columns or len(self.columns) == 1 or apart else groups


def _first_sentence(note: str) -> str:
    first, *rest = re.split(r"(?<=[\w\])%]\.) (?=[A-Z0-9])", note, maxsplit=1)
    return first if rest else note


def make_sheet(table: Table, names: Sequence[str], digits: int, style: str) -> Sheet:
    # One numbering: the audit's footnotes first, then the rows' own notes as they come.
    names_of_rows = {row.name for row in table.rows}  # what is of combinations alone stands with their part
    found = [finding for finding in table.audit if names_of_rows.intersection(finding.rows)]
    whose = {finding.number: "audit, every row" if table.is_shared(finding) else "audit" for finding in found}
    numbers = {f"{whose[finding.number]}: {finding.text}": finding.number for finding in found}
    marks = []
    for row in table.rows:
        audited = [finding.number for finding in table.own_findings(row)]
        marks.append(
            audited + [numbers.setdefault(note, max(numbers.values(), default=0) + 1) for note in table.notes_of(row)]
        )
    known = columns_of(table.metric)
    return Sheet(
        title=table.title,
        rows=table.rows,
        columns={name: known[name] for name in names},
        digits=digits,
        marks=marks,
        footnotes=[(number, note) for note, number in numbers.items()],
        explanations=_latex_explanations(table, names) if style == "latex" else _explanations(table, names),
        run_ids=[[run.run_id for run in row.runs] for row in table.rows],
    )


def _explanations(table: Table, names: Sequence[str]) -> list[str]:
    """What the numbers are, what they allow, and what to mind."""
    rows, label = table.rows, table.metric.label
    lines = [f"Every row: {note}" for note in table.shared_notes]
    if table.metric.name in names and any(row.ci95 for row in rows):
        lines.append(f"{label}: mean ± standard deviation over seeds [95% t interval of the mean].")
    if "mean" in names and any(row.std is not None for row in rows):
        lines.append(f"{label}: mean ± standard deviation over seeds.")
    test = name_of_test(row.delta for row in table.rows)
    if {"difference", "p"} & {*names} and (tested := _comparisons(row.delta for row in rows)):
        lines.append(
            f"Difference from the baseline: mean over common seeds [95% {test} t interval]; p: {test} t test, "
            f"{corrected_over(tested)}. The test asks whether the rows would differ if trained again."
        )
    if {"effect", "better"} & {*names} and (pairs := _most_pairs(table)):
        lines.append(
            "Effect: the difference divided by its standard deviation (Hedges' g of the pairs). Better: share of the "
            f"seeds in which the row beats the baseline, a tie counts half; 0 of {pairs} seeds has the 95% interval "
            f"[0.00, {_upper_end(pairs):.2f}]."
        )
    if "bootstrap" in names and (method := next((r.bootstrap.method for r in rows if r.bootstrap), None)):
        lines.append(f"Bootstrap: 95% interval of the mean, {method}.")
    if "images" in names and (tested := _comparisons(row.images for row in rows)):
        lines.append(
            f"p (images): {_test_over_images(rows)}, {corrected_over(tested)}; "
            f"<{FLOOR_P:.0e} is its floor, below which rounding errors would decide. "
            "The test asks whether these trained models differ on such images, not whether the rows would if trained "
            "again."
        )
    if "difference" in names or "p" in names:
        lines += [found["text"] for found in (table.resolution, table.spread) if found]
    lines += [table.power["text"]] if table.power else []
    lines += [table.equivalent["text"]] if table.equivalent else []
    lines += table.agreement["text"] if table.agreement and "paper" in names else []
    lines += [table.seed_counts["text"]] if table.seed_counts else []
    lines += table.registration["text"] if table.registration else []
    return lines + _untold_warnings(table)


def _test_over_images(rows: Iterable[Any]) -> str:
    """Of scores, as an IoU of each image, McNemar's test is not the one of a single seed."""
    counted = any(row.images and row.images.seed_method == MCNEMAR for row in rows)
    return "exact sign-flip test over images" + (" (McNemar's for one seed)" if counted else " of their scores")


def _untold_warnings(table: Table) -> list[str]:
    """The warnings that are no footnotes."""
    told = tuple(f"audit [{finding.number}]" for finding in table.audit)
    return [f"Warning: {warning}" for warning in table.warnings if not warning.startswith(told)]


def _latex_explanations(table: Table, names: Sequence[str]) -> list[str]:
    """What the numbers are, in the few words of a table note; what they allow is for the text around the table."""
    lines = [f"Every row: {note}" for note in table.shared_notes]
    counts = sorted({row.n for row in table.rows if row.n})
    if {table.metric.name, "mean"} & {*names} and counts:
        seeds = f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
        spread = "Mean ± standard deviation" if "mean" in names else "Mean and standard deviation (SD)"
        lines.append("One seed per row." if counts == [1] else f"{spread} over {seeds}.")
    test = name_of_test(row.delta for row in table.rows)
    if "difference" in names and any(row.delta for row in table.rows):
        lines.append(
            f"Diff.: from the baseline, paired by seed, with its 95% {'two-stage ' * (test != 'paired')}t interval."
        )
    if "p" in names and (tested := _comparisons(row.delta for row in table.rows)):
        lines.append(f"p: {test} t test, {corrected_over(tested)}.")
    if "bootstrap" in names and (method := next((r.bootstrap.method for r in table.rows if r.bootstrap), None)):
        lines.append(f"Bootstrap: 95% interval of the mean, {method}.")
    if "images" in names and (tested := _comparisons(row.images for row in table.rows)):
        lines.append(f"p (images): sign-flip test over images, {corrected_over(tested)}.")
    kendall = (table.agreement or {}).get("kendall")
    if "paper" in names and kendall and kendall["value"] is not None:
        order = f"Kendall's tau-b with the paper's order of rows is {kendall['value']:.2f}"
        clear = (table.agreement or {}).get("clear_pairs")
        if clear and clear["pairs"]:
            apart = f"{clear['apart']:g} point or more apart there"
            order += f", and {clear['in_order']} of {clear['pairs']} pairs {apart} are in its order"
        lines.append(f"{order}.")
    lines += [asked["text"] for asked in (table.power, table.equivalent, table.seed_counts) if asked]
    lines += table.registration["text"] if table.registration else []
    return lines + _untold_warnings(table)


def _comparisons(tests: Iterable[Delta | ImageTest | None]) -> int:
    """How many comparisons the tests of a table are corrected over; 0 where nothing was tested."""
    return next((test.comparisons for test in tests if test and test.comparisons), 0)


def _most_pairs(table: Table) -> int:
    """The most seeds that a row shares with the baseline and has a difference over."""
    there = table.baseline_row.values()
    return max((len(there.keys() & row.values().keys()) for row in table.rows if row.delta), default=0)


def _upper_end(pairs: int) -> float:
    never = probability_better([-1.0] * pairs)
    return never.ci95[1] if never and never.ci95 else 1.0


def sheet_cells(sheet: Sheet, transposed: bool) -> tuple[list[str], list[list[str]]]:
    """Headings and lines; transposed, the rows are the columns and their labels the headings."""
    headings, lines, at = sheet.headings, sheet.lines, sheet.labels
    if not transposed:
        return headings, lines
    rest = [[heading, *(line[i] for line in lines)] for i, heading in enumerate(headings) if i != at]
    return [headings[at], *(line[at] for line in lines)], rest
