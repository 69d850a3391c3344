"""The report as one HTML page that loads nothing: style, script, figures and data are in it, and no date or path.

Every string goes through `element`, which escapes whatever is not HTML already.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from metaformer_ablate import __version__
from metaformer_ablate.analysis.errors import summary as mistakes_of
from metaformer_ablate.analysis.formats import format_billions, format_interval, format_mean, format_millions, format_p
from metaformer_ablate.analysis.markup import (
    Html,
    anchor,
    cell,
    element,
    escape,
    grid,
    inline_svg,
    island,
    items,
    link,
    text_cell,
)
from metaformer_ablate.analysis.plots import KINDS, figure, to_bytes
from metaformer_ablate.analysis.report import Leftover, Place, Report, Section, Variant
from metaformer_ablate.analysis.stats import summarise
from metaformer_ablate.data.files import DataFolder
from metaformer_ablate.progress import duration
from metaformer_ablate.records import Record
from metaformer_ablate.yaml_reader import RequestError

# Points of curves in the whole page, 25 bytes each, and at most and at least in one curve.
CURVE_POINTS, MOST_POINTS, FEWEST_POINTS = 250_000, 200, 12
# Rows whose mistakes are read, which takes a twentieth of a second each; of more, none are.
MOST_MISTAKES = 100
# Figures of a table, in this order; a figure takes a quarter of a second, so of many tables only the first are drawn.
FIGURES, MOST_FIGURES = ("rows", "curves", "paper"), 40
CURVES = ("epoch", "train_loss", "val_loss", "val_top1")
Curve = list[list[float | None]]  # of these, in this order


def write(report: Report, folder: DataFolder) -> str:
    """The page: the same text for the same records, files of experiments and versions."""
    style, script = (
        resources.files("metaformer_ablate.analysis").joinpath(f"report.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "js")
    )
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Figures bring inline styles of their own; with nothing else allowed, no style can load anything.
    policy = f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'unsafe-inline'"
    policy += "; base-uri 'none'; form-action 'none'"
    machines = _Machines()
    runs, curves = _runs(report, machines)
    body = [
        element("a", "Skip to the tables", href="#tables", class_="skip"),
        _head(report),
        element(
            "main",
            _problems(report),
            _overview(report),
            element("div", *_experiments(report, folder), id="tables"),
            _leftovers(report),
            runs,
            machines.section(),
            _method(),
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


# ---------------------------------------------------------------------------------------------------------------------
# Pieces


def settings_text(differences: Iterable[tuple[str, str | None, str | None]]) -> str:
    """`train.epochs 1 (not 12), model.norm "none" (not "mln")`."""
    shown = (
        f"{path} {'absent' if here is None else here} (not {'absent' if there is None else there})"
        for path, here, there in differences
    )
    return ", ".join(shown) or "nothing"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def places_text(places: Sequence[Place]) -> str:
    names = [f"{place.experiment}/{place.row}" for place in places]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _top1(row: dict[str, Any], target: str | None) -> Html:
    """Mean, spread and status; the mean is linked to the runs behind it."""
    shown = format_mean(row)
    if row["mean"] is None or target is None:
        return Html(escape(shown)) if target is None else link(target, shown)
    first, _, rest = shown.partition(" ")
    return Html(link(target, first) + escape(f" {rest}" if rest else ""))


# ---------------------------------------------------------------------------------------------------------------------
# Parts of the page


def _head(report: Report) -> Html:
    statuses: dict[str, int] = {}
    for variant in (variant for found in report.variants.values() for variant in found):
        for record in variant.records.values():
            statuses[record.status] = statuses.get(record.status, 0) + 1
    counted = ", ".join(f"{statuses[status]:,} {status}" for status in sorted(statuses, key="ok diverged failed".find))
    total = sum(statuses.values())
    what = f"{count(total, 'run')} ({counted})" if total else "There are no records yet"
    sections = [section for section in report.sections if not section.only_baseline]
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
        table, here = section.table, _section_id(section)
        states = [run["status"] for row in table["rows"] for run in row["runs"]]
        recipe = table["recipe"]
        if section.only_baseline:
            row = next(row for row in table["rows"] if row["name"] == section.plan.experiment.baseline)
            cells = [text_cell(table["experiment"]), text_cell(recipe), text_cell(row["label"])]
            cells += [cell(row["mean"], _top1(row, section.variants[row["name"]]))]
            cells += [cell(section.missing, section.missing)]
            baselines.append(element("tr", *cells, data_recipe=recipe))
            continue
        cells = [element("th", link(here, table["experiment"]), scope="row", class_="text"), text_cell(recipe)]
        cells += [cell(len(section.variants), f"{len(section.variants)} of {len(section.plan.specs)}")]
        seeds = len({run["seed"] for row in table["rows"] for run in row["runs"]})
        cells += [cell(seeds, seeds)]
        for status in ("ok", "diverged", "failed", "stale", "missing"):
            number = states.count(status)
            cells.append(
                cell(number, number or "·", class_="bad" if number and status not in ("ok", "missing") else None)
            )
        cells.append(cell(len(table["warnings"]), len(table["warnings"]) or "·"))
        rows.append(element("tr", *cells, data_recipe=recipe))
    parts = []
    if rows:
        headings = ["Experiment", "Recipe", "Rows with records", "Seeds", "ok", "Diverged", "Failed", "Stale"]
        parts = [grid("Tables with records", [*headings, "Missing", "Warnings"], rows, left=2)]
    if baselines:
        parts.append(element("p", "Of these only the baseline has records, which other experiments share:"))
        headings = ["Experiment", "Recipe", "Baseline", "Top-1 (%)", "Rows without records"]
        parts.append(grid("Experiments of which only the baseline has records", headings, baselines, left=3))
    if not parts:
        parts = [
            element("p", "No experiment has records. ", element("code", "ablate run pooling_size"), " trains some.")
        ]
    return element("section", element("h2", "Overview"), *parts, id="overview")


def _section_id(section: Section) -> str:
    return anchor(section.table["experiment"], section.table["recipe"])


def _experiments(report: Report, folder: DataFolder) -> list[Html]:
    by_experiment: dict[str, list[Html]] = {}
    titles = {}
    for section in report.sections:
        if not section.only_baseline:
            name = section.plan.experiment.name
            titles[name] = section.plan.experiment.title
            shown = _experiment(section, report, _figures(section, report, folder))
            by_experiment.setdefault(name, []).append(shown)
    return [
        element("section", element("h2", titles[name], " ", element("code", name)), *parts, class_="experiment")
        for name, parts in by_experiment.items()
    ]


def _figures(section: Section, report: Report, folder: DataFolder) -> list[Html]:
    """The figures of a table that say something about its rows; of many tables, only the first kinds."""
    rows, here = section.table["rows"], _section_id(section)
    if not any(row["n"] for row in rows):
        return []
    compared = sum(row["n"] > 0 and "top1" in row["paper"] for row in rows)
    tables = sum(not other.only_baseline for other in report.sections)
    kinds = [kind for kind in FIGURES[: max(1, MOST_FIGURES // tables)] if kind != "paper" or compared >= 3]
    seeds = sorted({run["seed"] for row in rows for run in row["runs"]})
    shown = []
    for kind in kinds:
        svg = to_bytes(figure(kind, section.plan, report.store, folder, seeds), "svg")
        label = f"{KINDS[kind].about}: {section.table['experiment']} under {section.table['recipe']}"
        drawn = inline_svg(svg, f"{here}.{kind}.", label)
        shown.append(
            element("figure", element("div", drawn, class_="plot", tabindex=0, role="group", aria_label=label))
        )
    return shown


def _experiment(section: Section, report: Report, figures: list[Html]) -> Html:
    table, here = section.table, _section_id(section)
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
    parts.append(element("p", "The same from a terminal: ", *_joined(commands, ", "), ".", class_="quiet commands"))
    return element("article", *parts, id=here, data_recipe=recipe)


def _joined(parts: Sequence[Html], between: str) -> list[object]:
    return [piece for i, part in enumerate(parts) for piece in ((between, part) if i else (part,))]


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
        cell(row["mean"], _top1(row, target), class_="whole"),
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


def _leftovers(report: Report) -> Html:
    if not report.leftovers:
        return Html("")
    variants = {variant.key: variant for found in report.variants.values() for variant in found}
    parts = []
    for recipe, leftovers in report.leftovers.items():
        rows = []
        for leftover in leftovers:
            values = [r.top1 for r in variants[leftover.variant].records.values() if r.top1 is not None]
            row = _summary(variants[leftover.variant])
            cells = [element("th", settings_text(leftover.differences), scope="row", class_="text wide")]
            cells += [text_cell(places_text(leftover.nearest) or "none")]
            cells += [cell(row["mean"], _top1(row, leftover.variant), class_="whole"), cell(len(values), len(values))]
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


def _summary(variant: Variant) -> dict[str, Any]:
    """Mean, spread and status of a variant by itself, as the table has them of a row."""
    summary = summarise([record.top1 for record in variant.records.values() if record.top1 is not None])
    statuses = {record.status for record in variant.records.values()}
    status = next(iter(statuses)) if len(statuses) == 1 else "partial"
    return {"mean": summary.mean, "std": summary.std, "ci95": summary.ci95, "status": status}


# ---------------------------------------------------------------------------------------------------------------------
# Runs


def _runs(report: Report, machines: _Machines) -> tuple[Html, dict[str, Curve]]:
    """The section with every run under the spec it has, and the points of their curves by run id."""
    total = sum(len(variant.records) for found in report.variants.values() for variant in found)
    points = min(MOST_POINTS, max(FEWEST_POINTS, CURVE_POINTS // max(total, 1)))
    curves: dict[str, Curve] = {}
    leftovers = {entry.variant: entry for found in report.leftovers.values() for entry in found}
    parts = []
    for recipe, found in report.variants.items():
        blocks = []
        for variant in found:
            for record in variant.records.values():
                curves[record.run_id] = _curve(record, points)
            blocks.append(_variant(variant, found[0], recipe, report, leftovers.get(variant.key), machines, curves))
        title = element("h3", element("code", recipe), " ", element("span", report.recipes[recipe], class_="quiet"))
        parts.append(element("article", title, *blocks, data_recipe=recipe))
    if not parts:
        return Html(""), curves
    words = (
        "Every run under the spec that it was trained with, a line a seed. Its files are in ",
        element("code", "runs/RUN/"),
        f" of the results folder. Curves, drawn when a line is opened, have at most {points} points a run; ",
        element("code", "history.csv"),
        " has every epoch.",
    )
    return element("section", element("h2", "Runs"), element("p", *words), *parts, id="runs"), curves


def _variant(
    variant: Variant,
    reference: Variant,
    recipe: str,
    report: Report,
    leftover: Leftover | None,
    machines: _Machines,
    curves: dict[str, Curve],
) -> Html:
    places = [place for place in report.places.get(variant.key, []) if place.recipe == recipe]
    if leftover is not None:
        nearest = places_text(leftover.nearest[:1])
        name: object = f"like {nearest}, but {settings_text(leftover.differences)}" if nearest else "of no experiment"
    else:
        name = places_text(places)
    row = _summary(variant)
    summary = element(
        "summary",
        element("span", name, class_="name"),
        element("span", f"{count(len(variant.records), 'run')}: {format_mean(row)}", class_="quiet"),
    )
    drawn = {(section.table["experiment"], recipe) for section in report.sections if not section.only_baseline}
    tables = [
        link(anchor(place.experiment, recipe), place.experiment)
        for place in places
        if (place.experiment, recipe) in drawn
    ]
    parts: list[object] = []
    if tables:
        parts.append(element("p", "In the tables: ", *_joined(tables, ", "), "."))
    if variant is reference:
        lines = (f"{path}: {value}" for path, value in variant.settings().items())
        parts += [element("p", "The spec in full:"), element("pre", "\n".join(lines), tabindex=0)]
    else:
        mine, theirs = variant.settings(), reference.settings()
        paths = [path for path in mine | theirs if mine.get(path) != theirs.get(path)]
        text = settings_text((path, mine.get(path), theirs.get(path)) for path in paths)
        parts.append(element("p", "The spec is ", link(reference.key, "the one in full"), f" but for: {text}."))
    headings = ["Run", "Seed", "Status", "Top-1 (%)", "Top-5 (%)", "Loss", "Epoch: top-1", "Epochs", "Images seen"]
    headings += ["Time", "Peak memory", "Environment"]
    rows = (_run(seed, record, curves[record.run_id], machines) for seed, record in variant.records.items())
    parts.append(grid("Runs by seed", headings, rows, "sortable runs"))
    parts.append(element("div", class_="curves"))
    return element("details", summary, *parts, id=variant.key, class_="variant")


def _run(seed: int, record: Record, curve: Curve, machines: _Machines) -> Html:
    data = record.data
    metrics = data["metrics"] or {}
    status = record.status + (": " + str(data.get("reason")) if data.get("reason") else "")
    if data.get("at_chance"):
        status += ", at chance"
    seconds, memory = _float(data["seconds"]), _float(data.get("peak_memory_bytes"))
    cells = [
        element("th", element("code", record.run_id), scope="row", class_="text"),
        cell(seed, seed),
        element("td", status, class_="text bad" if record.status != "ok" else "text"),
        *(_number(metrics.get(name), 2) for name in ("top1", "top5")),
        _number(metrics.get("loss"), 3),
        element("td", _curve_text(curve)),
        _number(data.get("epochs"), 0),
        _number(data.get("images_seen"), 0),
        cell(seconds, "·" if seconds is None else duration(seconds)),
        cell(memory, "·" if memory is None else f"{memory / 2**20:,.0f} MiB"),
        element("td", machines.link(data)),
    ]
    return element("tr", *cells, id=f"run-{record.run_id}")


def _float(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def _number(value: Any, digits: int) -> Html:
    number = _float(value)
    return cell(number, "·" if number is None else f"{number:,.{digits}f}")


def _history(record: Record) -> tuple[list[str], list[list[str]]]:
    """Names and lines of history.csv as they are written."""
    try:
        with (record.folder / "history.csv").open(newline="", encoding="utf-8") as stream:
            names, *lines = csv.reader(stream)
    except (OSError, ValueError, csv.Error):
        return [], []
    return names, [line for line in lines if len(line) == len(names)]


def _curve(record: Record, points: int) -> Curve:
    """The columns of CURVES at no more than `points` epochs, evenly spread with the first and last; None for a gap."""
    names, lines = _history(record)
    if len(lines) > points:
        lines = [lines[round(i * (len(lines) - 1) / (points - 1))] for i in range(points)]
    where = [names.index(name) if name in names else None for name in CURVES]
    return [[None if i is None else _rounded(line[i]) for line in lines] for i in where]


def _rounded(text: str) -> float | None:
    try:
        value = float(f"{float(text):.4g}")
    except ValueError:
        return None
    return None if not math.isfinite(value) else int(value) if value == int(value) else value


def _curve_text(curve: Curve) -> str:
    """`1: 40.0, 6: 91.2, 12: 97.3`: what the curve says, for those who do not see it."""
    epochs, top1 = curve[0], curve[3]
    shown = sorted({0, len(epochs) // 2, len(epochs) - 1}) if epochs else []
    pairs = ((epochs[i], top1[i]) for i in shown)
    return ", ".join(f"{e:g}:\N{NO-BREAK SPACE}{t:.1f}" for e, t in pairs if e is not None and t is not None) or "·"


class _Machines:
    """The environments that runs were trained in, numbered in the order in which they are met."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.counts: dict[int, int] = {}

    def link(self, data: dict[str, Any]) -> Html:
        known = {key: data.get(key) for key in ("device", "versions", "git", "data_fingerprint")}
        number = self.numbers.setdefault(json.dumps(known, sort_keys=True), len(self.numbers) + 1)
        self.counts[number] = self.counts.get(number, 0) + 1
        return link(f"machine-{number}", f"E{number}")

    def section(self) -> Html:
        rows = []
        for text, number in self.numbers.items():
            known = json.loads(text)
            versions, git = (known[key] if isinstance(known[key], dict) else {} for key in ("versions", "git"))
            commit = "unknown" if git.get("commit") is None else git["commit"]
            commit = f"{commit} with changes" if git.get("dirty") else commit
            cells = [
                element("th", f"E{number}", scope="row", class_="text"),
                cell(self.counts[number], f"{self.counts[number]:,}"),
                text_cell(known["device"] or "unknown"),
                element("td", element("code", commit), class_="text wide"),
                text_cell(known["data_fingerprint"] or "unknown"),
                element("td", ", ".join(f"{k} {v}" for k, v in versions.items()) or "unknown", class_="text wide"),
            ]
            rows.append(element("tr", *cells, id=f"machine-{number}"))
        if not rows:
            return Html("")
        headings = ["", "Runs", "Device", "Commit of metaformer_ablate", "Data fingerprint", "Versions"]
        box = grid("Environments", headings, rows, "")
        return element("section", element("h2", "Environments"), box, id="machines")


_METHOD = {
    "What a number is": """
        Top-1 in percent on the recipe's evaluation split at the last epoch; nothing is chosen on that split. n is the
        number of runs that ended (status ok), one a seed. A number of one seed is a single draw and has no spread.""",
    "Spread": """
        The standard deviation is over seeds, with n - 1. The interval of a mean is Student's t at 95%.""",
    "Differences": """
        Row and baseline are paired by seed: the same seed sees the same images in the same order. Interval and p are
        those of the paired t test over the seeds that both have, p corrected by Holm over the rows of the table; what
        else was done stands beside the p. A large p does not say that two rows are equal.""",
    "Runs that did not end": """
        A diverged or failed run is in no mean, and its row says so. Where a seed of a row or of the baseline diverged,
        no difference is shown: the seeds that are left would be the fortunate ones. A stale run saw other data than
        today's; it is shown and not counted.""",
    "Cost": """
        Parameters are the trained ones; frozen ones stand apart. MACs are multiply-adds of one image at the recipe's
        resolution, as fvcore counts them.""",
    "Identity": """
        A run is named by a hash of everything that can change its result, seed included. A row shows the runs whose
        hash is that of the row's spec, so a run with an override is never in the table of the plain recipe.""",
    "Paper": """
        Top-1 as the experiment's file quotes it, on ImageNet-1K. Under another recipe its order of rows can be
        compared, its values cannot.""",
}


def _method() -> Html:
    terms = [
        piece
        for term, text in _METHOD.items()
        for piece in (element("dt", term), element("dd", " ".join(text.split())))
    ]
    return element("section", element("h2", "Method"), element("dl", *terms), id="method")
