"""The report as one HTML page that loads nothing: style, script, figures and data are in it, and no date or path.

The templates beside this file write it; Jinja escapes every string that they print.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from metaformer_ablate.analysis.escapes import html_text
from metaformer_ablate.analysis.report.arrange import arranged
from metaformer_ablate.analysis.report.cells import anchor
from metaformer_ablate.analysis.report.collect import Report
from metaformer_ablate.analysis.report.figures import table_figures
from metaformer_ablate.analysis.report.overview import header, method_words, overview
from metaformer_ablate.analysis.report.runs import Machines, all_runs
from metaformer_ablate.analysis.report.tables import Article, experiment_article, unplanned_grids
from metaformer_ablate.version import __version__

# A figure takes a second, so of many tables only the first kinds are drawn.
MOST_FIGURES = 40


def write(report: Report) -> str:
    """The page: the same text for the same records, files of experiments and versions."""
    report = replace(report, sections=arranged(report.sections))
    style, script = (_file(f"report.{kind}") for kind in ("css", "js"))
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Figures bring inline styles of their own; with nothing else allowed, no style can load anything.
    policy = f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'unsafe-inline'"
    machines = Machines()
    runs = all_runs(report, machines)
    tasks = list(dict.fromkeys(one.task for found in report.variants.values() for one in found))
    return (
        _templates()
        .get_template("page.html")
        .render(
            report=report,
            version=__version__,
            style=Markup(style),  # of this package, as the script is
            script=Markup(script),
            policy=f"{policy}; base-uri 'none'; form-action 'none'",
            header=header(report),
            overview=overview(report),
            experiments=_experiments(report),
            unplanned=unplanned_grids(report),
            runs=runs,
            machines=machines.grid(),
            method=method_words(tasks),
        )
    )


def _file(name: str) -> str:
    return resources.files("metaformer_ablate.analysis.report").joinpath(name).read_text(encoding="utf-8")


def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_plain,
    )
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return found


def _plain(value: Any) -> Any:
    """What is printed: text without the characters that HTML cannot hold."""
    return value if isinstance(value, Markup) else html_text(str(value))


def _experiments(report: Report) -> dict[str, tuple[str, list[Article]]]:
    """By name the title and the articles of each experiment."""
    whole = report.tables
    drawn = [section for section in whole if not section.part_of]
    most = max(1, MOST_FIGURES // max(1, len(drawn)))
    found: dict[str, tuple[str, list[Article]]] = {}
    for section in whole:
        experiment = section.plan.experiment
        here = anchor(section.table.experiment, section.table.recipe)
        figures = table_figures(section.table, here, most) if section in drawn else []
        _, articles = found.setdefault(experiment.name, (experiment.title, []))
        articles.append(experiment_article(section, report, figures))
    return found
