"""What a report says before its tables: how much there is, what was left out, and which tables have records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from metaformer_ablate.analysis.report.cells import (
    Cell,
    Grid,
    Line,
    anchor,
    count,
    head,
    mean_cell,
    metric_heading,
    number,
    words,
)
from metaformer_ablate.analysis.report.collect import Report, Section
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import get_task

STATUSES = ("ok", "diverged", "failed", "stale", "missing")


def header(report: Report) -> dict[str, Any]:
    """The counts, and the parts of the page with their titles."""
    statuses = Counter(
        variant.status(seed) for found in report.variants.values() for variant in found for seed in variant.records
    )
    counted = ", ".join(f"{statuses[status]:,} {status}" for status in sorted(statuses, key=STATUSES.index))
    total = sum(statuses.values())
    sections = report.tables
    what = f"{count(total, 'run')} ({counted})" if total else "There are no records yet"
    what += f" in {count(len(sections), 'table')}" if sections else ""
    titles = {
        "overview": ("Overview", sections),
        "tables": ("Tables", sections),
        "other": ("Other runs", report.leftovers),
        "runs": ("Runs", total),
        "machines": ("Environments", total),
        "method": ("Method", True),
    }
    return {"what": what, "parts": [(name, title) for name, (title, there) in titles.items() if there]}


def overview(report: Report) -> dict[str, Grid | None]:
    """The tables with records, and those of which only the baseline has some."""
    whole = report.tables
    alone = [section for section in report.sections if section.only_baseline]
    headings = ["Experiment", "Recipe", "Rows with records", "Seeds", "ok", "Diverged", "Failed", "Stale", "Missing"]
    tables = Grid("Tables with records", [*headings, "Warnings"], [_table_line(section) for section in whole], left=2)
    metric = metric_heading(section.table.metric for section in alone)
    baselines = Grid(
        "Experiments of which only the baseline has records",
        ["Experiment", "Recipe", "Baseline", metric, "Rows without records"],
        [_baseline_line(section) for section in alone],
        left=3,
    )
    return {"tables": tables if whole else None, "baselines": baselines if alone else None}


def _table_line(section: Section) -> Line:
    table = section.table
    states = Counter(run.status for row in table.rows for run in row.runs)
    seeds = len({run.seed for row in table.rows for run in row.runs})
    cells: list[Cell] = [head(table.experiment, target=anchor(table.experiment, table.recipe)), words(table.recipe)]
    cells += [number(len(section.variants), f"{len(section.variants)} of {len(section.plan.everything())}")]
    cells += [number(seeds, seeds)]
    for status in STATUSES:
        bad = states[status] and status not in ("ok", "missing")
        cells.append(number(states[status], states[status] or "·", style="bad" if bad else _void(states[status])))
    cells.append(number(len(table.warnings), len(table.warnings) or "·", style=_void(len(table.warnings))))
    return Line(cells, {"data-recipe": table.recipe})


def _void(number: int) -> str | None:
    """The class of a cell that a phone leaves out."""
    return None if number else "void"


def _baseline_line(section: Section) -> Line:
    table, row = section.table, section.table.baseline_row
    cells = [words(table.experiment), words(table.recipe), words(row.label)]
    cells += [mean_cell(row, section.variants[row.name]), number(section.missing, section.missing)]
    return Line(cells, {"data-recipe": table.recipe})


def method_words(tasks: Sequence[Task]) -> dict[str, str]:
    """The words in which the definitions depend on the tasks that the page shows."""
    metrics = [task.reported for task in tasks] or [get_task().reported]
    return {
        "label": " or ".join(dict.fromkeys(metric.label for metric in metrics)),
        "percent": " in percent" if all(metric.unit == "%" for metric in metrics) else "",
        # What the paper trains classification on.
        "where": ", on ImageNet-1K" if all(task is get_task() for task in tasks) else "",
    }
