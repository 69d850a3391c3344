"""`ablate report`: one page of everything."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from metaformer_ablate.cli.options import options, store_of, warn_problems
from metaformer_ablate.errors import RequestError

logger = logging.getLogger(__name__)


@click.command("report")
@click.option("--recipe", "recipes", multiple=True, metavar="NAME", help="Only this one; may be given several times.")
@options("results", "data")
@click.option("--out", default="report.html", show_default=True, metavar="FILE", help="Where the page is written.")
def report_command(recipes: tuple[str, ...], results: str | None, data: str | None, out: str) -> None:
    """Every experiment under every recipe that has records, as one HTML page that loads nothing from a network."""
    from metaformer_ablate.analysis.report.collect import collect
    from metaformer_ablate.analysis.report.page import write
    from metaformer_ablate.data.folder import DataFolder

    store, folder = store_of(results), DataFolder.choose(data)
    report = collect(store, folder, recipes)
    page = write(report, folder)
    try:
        Path(out).write_text(page, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--out {out}: cannot be written: {error.strerror}") from None
    warn_problems(store)
    for sentence in report.unreadable:
        logger.warning(sentence)
    runs = sum(len(variant.records) for found in report.variants.values() for variant in found)
    if not runs:
        logger.warning(f"there are no records in {store.path}")
    click.echo(f"{out}: {runs} runs, {len(report.sections)} tables, {len(page.encode()) / 1e6:.1f} MB")
