"""The report as one HTML page that loads nothing: style, script, figures and data are in it, and no date or path.

Every string goes through `element`, which escapes whatever is not HTML already.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from metaformer_ablate import __version__
from metaformer_ablate.analysis.figures.kinds import KINDS, draw, figure_data
from metaformer_ablate.analysis.report.collect import Report, Section
from metaformer_ablate.analysis.report.markup import (
    Html,
    cell,
    element,
    grid,
    inline_svg,
    island,
    items,
    link,
    text_cell,
)
from metaformer_ablate.analysis.report.method import method
from metaformer_ablate.analysis.report.phrases import count, mean_cell, metric_heading, section_id
from metaformer_ablate.analysis.report.runs import Machines, runs_section
from metaformer_ablate.analysis.report.tables import experiment_section, unplanned_section
from metaformer_ablate.drawing.canvas import to_bytes

# Figures of a table, in this order; a figure takes a quarter of a second, so of many tables only the first are drawn.
FIGURES, MOST_FIGURES = ("rows", "curves", "paper"), 40


def write(report: Report) -> str:
    """The page: the same text for the same records, files of experiments and versions."""
    style, script = (
        resources.files("metaformer_ablate.analysis.report").joinpath(f"report.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "js")
    )
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Figures bring inline styles of their own; with nothing else allowed, no style can load anything.
    policy = f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'unsafe-inline'"
    policy += "; base-uri 'none'; form-action 'none'"
    machines = Machines()
    runs, curves = runs_section(report, machines)
    body = [
        element("a", "Skip to the tables", href="#tables", class_="skip"),
        _head(report),
        element(
            "main",
            _problems(report),
            _overview(report),
            element("div", *_experiments(report), id="tables"),
            unplanned_section(report),
            runs,
            machines.section(),
            method(list(dict.fromkeys(one.task for found in report.variants.values() for one in found))),
        ),
        island("curves", curves),
        element("script", Html(script)),
    ]
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", "MetaFormer ablations"),
        element("style", Html(style)),
    ]
    parts = [element("head", *head), "\n", element("body", *body)]
    return "<!DOCTYPE html>\n" + element("html", *map(Html, parts), lang="en") + "\n"


def _head(report: Report) -> Html:
    statuses: dict[str, int] = {}
    for variant in (variant for found in report.variants.values() for variant in found):
        for record in variant.records.values():
            statuses[record.status] = statuses.get(record.status, 0) + 1
    counted = ", ".join(f"{statuses[status]:,} {status}" for status in sorted(statuses, key="ok diverged failed".find))
    total = sum(statuses.values())
    what = f"{count(total, 'run')} ({counted})" if total else "There are no records yet"
    sections = report.tables
    what += f" in {count(len(sections), 'table')}" if sections else ""
    names = {"overview": "Overview", "tables": "Tables", "other": "Other runs", "runs": "Runs"}
    names |= {"machines": "Environments", "method": "Method"}
    shown = {"overview": sections, "tables": sections, "other": report.leftovers, "runs": total, "machines": total}
    navigation = [link(name, title) for name, title in names.items() if shown.get(name, True)]
    options = [element("option", "all recipes", value="")]
    options += [element("option", name, value=name) for name in report.recipes]
    choice = element("label", "Recipe ", element("select", *options, id="recipe"))
    tools = element("div", choice, element("span", id="said", role="status"), id="tools", hidden=True)
    return element(
        "header",
        element("h1", "MetaFormer ablations"),
        element("p", f"{what}. Made from records alone by metaformer_ablate {__version__}.", class_="quiet"),
        element("nav", *navigation, aria_label="Parts of this page"),
        tools,
    )


def _problems(report: Report) -> Html:
    parts = []
    if report.problems:
        parts += [element("p", "Not counted as results:"), items(report.problems)]
    if report.unreadable:
        parts += [element("p", "Experiments and recipes that do not load, and what they would show:")]
        parts += [items(report.unreadable)]
    title = element("h2", "Left out")
    return element("section", title, *parts, class_="warning", id="left-out") if parts else Html("")


def _overview(report: Report) -> Html:
    rows, baselines = [], []
    for section in report.sections:
        table, here = section.table, section_id(section)
        states = [run.status for row in table.rows for run in row.runs]
        recipe = table.recipe
        if section.only_baseline:
            row = table.baseline_row
            cells = [text_cell(table.experiment), text_cell(recipe), text_cell(row.label)]
            cells += [cell(row.mean, mean_cell(row, section.variants[row.name]))]
            cells += [cell(section.missing, section.missing)]
            baselines.append(element("tr", *cells, data_recipe=recipe))
            continue
        cells = [element("th", link(here, table.experiment), scope="row", class_="text"), text_cell(recipe)]
        cells += [cell(len(section.variants), f"{len(section.variants)} of {len(section.plan.everything())}")]
        seeds = len({run.seed for row in table.rows for run in row.runs})
        cells += [cell(seeds, seeds)]
        for status in ("ok", "diverged", "failed", "stale", "missing"):
            number = states.count(status)
            cells.append(
                cell(number, number or "·", class_="bad" if number and status not in ("ok", "missing") else None)
            )
        cells.append(cell(len(table.warnings), len(table.warnings) or "·"))
        rows.append(element("tr", *cells, data_recipe=recipe))
    parts = []
    if rows:
        headings = ["Experiment", "Recipe", "Rows with records", "Seeds", "ok", "Diverged", "Failed", "Stale"]
        parts = [grid("Tables with records", [*headings, "Missing", "Warnings"], rows, left=2)]
    if baselines:
        parts.append(element("p", "Of these only the baseline has records, which other experiments share:"))
        shared = [section.table.metric for section in report.sections if section.only_baseline]
        headings = ["Experiment", "Recipe", "Baseline", metric_heading(shared), "Rows without records"]
        parts.append(grid("Experiments of which only the baseline has records", headings, baselines, left=3))
    if not parts:
        parts = [
            element("p", "No experiment has records. ", element("code", "ablate run pooling_size"), " trains some.")
        ]
    return element("section", element("h2", "Overview"), *parts, id="overview")


def _experiments(report: Report) -> list[Html]:
    by_experiment: dict[str, list[Html]] = {}
    titles = {}
    for section in report.sections:
        if not section.only_baseline:
            name = section.plan.experiment.name
            titles[name] = section.plan.experiment.title
            shown = experiment_section(section, report, _figures(section, report))
            by_experiment.setdefault(name, []).append(shown)
    return [
        element("section", element("h2", titles[name], " ", element("code", name)), *parts, class_="experiment")
        for name, parts in by_experiment.items()
    ]


def _figures(section: Section, report: Report) -> list[Html]:
    """The figures of a table that say something about its rows; of many tables, only the first kinds."""
    rows, here = section.table.rows, section_id(section)
    if not any(row.n for row in rows):
        return []
    compared = sum(row.n > 0 and row.printed is not None for row in rows)
    tables = sum(not other.only_baseline for other in report.sections)
    kinds = [kind for kind in FIGURES[: max(1, MOST_FIGURES // tables)] if kind != "paper" or compared >= 3]
    shown = []
    for kind in kinds:
        svg = to_bytes(draw(figure_data(kind, section.table)), "svg")
        label = f"{KINDS[kind].describe(section.table.metric)}: {section.table.title}"
        drawn = inline_svg(svg, f"{here}.{kind}.", label)
        shown.append(
            element("figure", element("div", drawn, class_="plot", tabindex=0, role="group", aria_label=label))
        )
    return shown
