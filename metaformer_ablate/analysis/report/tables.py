"""Tables of the report."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from metaformer_ablate.analysis.report.collect import Report, Section
from metaformer_ablate.analysis.report.markup import Html, cell, element, escape, grid, items, link, text_cell
from metaformer_ablate.analysis.report.phrases import (
    MOST_MISTAKES,
    joined,
    mean_cell,
    places_text,
    section_id,
    seed_summary,
    settings_text,
)
from metaformer_ablate.analysis.tables.columns import format_billions, format_interval, format_millions, format_p
from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.classification.error_analysis.summary import summary as mistakes_of


def experiment_section(section: Section, report: Report, figures: list[Html]) -> Html:
    table, here = section.table, section_id(section)
    recipe = table["recipe"]
    marks: dict[str, int] = {}
    rows = [_row(row, section, here, marks) for row in table["rows"]]
    headings = ["Group", "Row", "Params (M)", "MACs (G)", "Top-1 (%)", "n", "Difference", "p", "Paper top-1"]
    label = f"{table['experiment']} under {recipe}"
    parts = [
        element("h3", "under ", element("code", recipe), " ", element("span", report.recipes[recipe], class_="quiet"))
    ]
    findings = [finding["text"] for finding in table.get("audit") or []]  # each stands below, with its rows
    if warnings := [text for text in table["warnings"] if not any(finding in text for finding in findings)]:
        parts.append(element("div", items(warnings), class_="warning", role="note", aria_label="Warnings"))
    parts.append(grid(label, headings, rows, "sortable results", left=2))
    parts.append(_notes(table, here, marks))
    parts += figures
    parts.append(_mistakes(section, report))
    parts.append(_sets(section))
    command = f"{table['experiment']} --recipe {recipe}"
    commands = [element("code", f"ablate {verb} {command}") for verb in ("table", "plot", "show")]
    parts.append(element("p", "The same from a terminal: ", *joined(commands, ", "), ".", class_="quiet commands"))
    return element("article", *parts, id=here, data_recipe=recipe)


def _row(row: dict[str, Any], section: Section, here: str, marks: dict[str, int]) -> Html:
    target = section.variants.get(row["name"])
    baseline = row["name"] == section.plan.experiment.baseline
    delta = row["delta"]

    def marked(texts: Iterable[str]) -> Html:
        numbers = [marks.setdefault(text, len(marks) + 1) for text in texts]
        links = [link(f"{here}.{number}", f"[{number}]", title=f"note {number}") for number in numbers]
        return element("sup", *links, class_="marks") if links else Html("")

    findings = section.table.get("audit") or []
    notes = [
        *row["notes"],
        *(f["text"] for f in findings if row["name"] in f["rows"] and f["text"] not in row["notes"]),
    ]
    known = delta is not None and delta["p"] is not None
    shift = None if delta is None else format_interval(delta["mean"], delta["ci95"], signed=True).partition(" ")
    cells = [
        text_cell(row["group"]),
        element("th", element("span", row["label"]), marked(notes), scope="row", class_="text"),
        cell(row["params"], format_millions(row["params"], row["frozen_params"])),
        cell(row["macs"], format_billions(row["macs"])),
        cell(row["mean"], mean_cell(row, target), class_="whole"),
        cell(row["n"], link(target, row["n"]) if target and row["n"] else row["n"]),
        cell(
            delta and delta["mean"],
            "" if shift is None else link(str(target), shift[0]),
            f" {shift[2]}" if shift and shift[2] else "",
            class_="whole",
        ),
        cell(
            delta["p"] if known else None,
            format_p(delta["p"]) if known else "",
            marked([f"p: {delta['method']}"] if delta else []),
            class_="whole",
        ),
        cell(row["paper"].get("top1"), "" if row["paper"].get("top1") is None else f"{row['paper']['top1']:.1f}"),
    ]
    return element("tr", *cells, class_="baseline" if baseline else None)


def _notes(table: dict[str, Any], here: str, marks: dict[str, int]) -> Html:
    notes = [element("li", text, id=f"{here}.{number}", value=number) for text, number in marks.items()]
    lines = []
    if any(row["ci95"] or (row["delta"] and row["delta"]["ci95"]) for row in table["rows"]):
        words = (
            "Top-1: mean ± standard deviation over n seeds [95% t interval of the mean]. Difference: to the baseline"
        )
        lines.append(words + ", mean over common seeds [95% paired t interval].")
    if resolution := table.get("resolution"):
        lines.append(resolution["text"])
    if agreement := table.get("agreement"):
        lines += agreement["text"]
    listed = [element("ol", *notes, class_="notes")] if notes else []
    return element("div", *listed, *(element("p", line, class_="quiet") for line in lines), class_="below")


def _mistakes(section: Section, report: Report) -> Html:
    """What one run of each row gets wrong: that of its first seed, from its predictions."""
    shown = {key for other in report.sections if not other.only_baseline for key in other.variants.values()}
    if len(shown) > MOST_MISTAKES:
        return Html("")
    lines = []
    for row in section.table["rows"]:
        run = next((run for run in row["runs"] if run["status"] == "ok"), None)
        record = report.store.read(run["run_id"]) if run else None
        if run is None or record is None:
            continue
        head = element("th", element("span", row["label"]), scope="row", class_="text")
        seed = cell(run["seed"], link(f"run-{run['run_id']}", run["seed"]))
        try:
            found = mistakes_of(record)
        except RequestError as error:
            lines.append(element("tr", head, seed, element("td", str(error), colspan=3, class_="text wide")))
            continue
        pairs = [f"{p['label_name']} for {p['predicted_name']}: {p['count']} of {p['of']}" for p in found["pairs"][:3]]
        worst = min((c for c in found["classes"] if c["images"]), key=lambda c: c["accuracy"])
        text = f"{worst['name']}: {worst['accuracy']:.1f} [{worst['ci95'][0]:.1f}, {worst['ci95'][1]:.1f}]"
        confused = element("td", "; ".join(f"takes {pair}" for pair in pairs) or "none", class_="text wide")
        ece = found["calibration"]["ece"]
        lines.append(element("tr", head, seed, confused, cell(worst["accuracy"], text), cell(ece, f"{ece:.1f}")))
    if not lines:
        return Html("")
    headings = ["Row", "Seed", "Most frequent mistakes", "Worst class (%)", "Calibration error (points)"]
    words = "One run of each row, from its predictions. Intervals are Wilson's at 95% over the images, not over seeds. "
    words = element("p", words, element("code", "ablate errors RUN"), " shows the images.", class_="quiet")
    box = grid(f"Mistakes, {section.table['experiment']} under {section.table['recipe']}", headings, lines)
    return element("details", element("summary", "What the rows get wrong"), box, words)


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
            values = [r.top1 for r in variants[leftover.variant].records.values() if r.top1 is not None]
            row = seed_summary(variants[leftover.variant])
            cells = [element("th", settings_text(leftover.differences), scope="row", class_="text wide")]
            cells += [text_cell(places_text(leftover.nearest) or "none")]
            cells += [
                cell(row["mean"], mean_cell(row, leftover.variant), class_="whole"),
                cell(len(values), len(values)),
            ]
            rows.append(element("tr", *cells))
        title = element(
            "h3", "closest to ", element("code", recipe), " ", element("span", report.recipes[recipe], class_="quiet")
        )
        headings = ["Differs in", "From the row", "Top-1 (%)", "n"]
        box = grid(f"Other runs, closest to {recipe}", headings, rows, left=2)
        parts.append(element("article", title, box, data_recipe=recipe))
    words = (
        "Runs that belong to no table, such as those with overrides: each with the planned row that it differs from in "
        "the fewest fields. They are in no mean above. With their overrides, ",
        element("code", "ablate table EXPERIMENT KEY.PATH=VALUE"),
        " compares them with their own baseline.",
    )
    return element("section", element("h2", "Other runs"), element("p", *words), *parts, id="other")
