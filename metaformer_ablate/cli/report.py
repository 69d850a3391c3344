"""`ablate report`: one page of everything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metaformer_ablate.cli.completion import complete_one_experiment, complete_recipes
from metaformer_ablate.cli.options import examples, one_name, options, say, seeds_of, store_of, warn_problems
from metaformer_ablate.errors import RequestError

if TYPE_CHECKING:
    from metaformer_ablate.analysis.report.collect import Report
    from metaformer_ablate.records.store import Store

logger = logging.getLogger(__name__)


_REPORT_EXAMPLES = examples(
    "ablate report",
    "ablate report --recipe cifar10_small --out study.html",
    "ablate report --checklist runs.tex table5 --recipe cifar10_small",
)


@click.command("report", epilog=_REPORT_EXAMPLES)
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="NAME",
    help="Only this one; may be given several times.",
    shell_complete=complete_recipes,
)
@click.argument("words", nargs=-1, metavar="[EXPERIMENT [KEY.PATH=VALUE]...]", shell_complete=complete_one_experiment)
@options("seeds with records", "results", "data")
@click.option(
    "--checklist", metavar="FILE", help="Instead: what was run of an experiment, for an appendix (.txt, .md, .tex)."
)
@click.option("--out", default="report.html", show_default=True, metavar="FILE", help="Where the page is written.")
def report_command(
    words: tuple[str, ...],
    recipes: tuple[str, ...],
    seeds: str | None,
    results: str | None,
    data: str | None,
    checklist: str | None,
    out: str,
) -> int:
    """One HTML page of every experiment that has records.

    It loads nothing from a network. An experiment, overrides and --seeds are
    for --checklist alone.
    """
    if checklist is not None:
        return _write_checklist(checklist, words, recipes, seeds, results, data)
    if words or seeds is not None:
        given = repr(words[0]) if words else "--seeds"
        raise RequestError(f"report: {given} is for --checklist FILE; the page shows every experiment and seed")
    from metaformer_ablate.analysis.report.cells import count
    from metaformer_ablate.analysis.report.collect import collect
    from metaformer_ablate.analysis.report.page import write
    from metaformer_ablate.data.folder import DataFolder

    store, folder = store_of(results), DataFolder.choose(data)
    report = collect(store, folder, recipes)
    if not report.runs:
        _tell_problems(store, report)
        logger.info(_nothing_to_show(store, recipes))
        return 1
    page = write(report)
    try:
        Path(out).write_text(page, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--out {out}: cannot be written: {error.strerror}") from None
    _tell_problems(store, report)
    counts = f"{count(report.runs, 'run')} in {count(len(report.tables), 'table')}"
    say(f"{out}: {counts}, {len(page.encode()) / 1e6:.1f} MB")
    return 0


def _tell_problems(store: Store, report: Report) -> None:
    warn_problems(store)
    for sentence in report.unreadable:
        logger.warning(sentence)


def _nothing_to_show(store: Store, recipes: tuple[str, ...]) -> str:
    there = len(list(store)) if recipes else 0
    if not there:
        return f"nothing to show: there are no records in {store.path}; `ablate run pooling_size` trains some"
    return (
        f"nothing to show: none of the {there} runs in {store.path} is under {' or '.join(recipes)}; "
        f"without --recipe the report shows them all"
    )


def _write_checklist(
    out: str,
    words: tuple[str, ...],
    recipes: tuple[str, ...],
    seeds: str | None,
    results: str | None,
    data: str | None,
) -> int:
    from metaformer_ablate.analysis.report.checklist import SUFFIXES, build_checklist, render_checklist
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.status import nothing_there
    from metaformer_ablate.spec.plan import plan

    suffix = Path(out).suffix
    if suffix not in SUFFIXES:
        raise RequestError(f"--checklist is {out!r}; allowed: a file whose name ends in {', '.join(SUFFIXES)}")
    if len(recipes) > 1:
        raise RequestError(f"--recipe is given {len(recipes)} times; --checklist is of one recipe")
    name, overrides = one_name(words, "experiment")
    store = store_of(results)
    chosen, wanted = plan(name, recipes[0] if recipes else "digits", overrides), seeds_of(seeds)
    listed = build_checklist(chosen, store, DataFolder.choose(data), wanted)
    if not listed.records:
        warn_problems(store)
        logger.info(f"nothing to list: {nothing_there(chosen, store, wanted)}")
        return 1
    text = render_checklist(listed, suffix)
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--checklist {out}: cannot be written: {error.strerror}") from None
    warn_problems(store)
    say(f"{out}: the checklist of {chosen.experiment.name} under {chosen.recipe.name}")
    return 0
