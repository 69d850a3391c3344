"""`ablate table`: tables from records alone."""

from __future__ import annotations

from pathlib import Path

import click

from metaformer_ablate.commands.common import one_name, options, seeds_of, store_of, tell_problems
from metaformer_ablate.yaml_reader import RequestError


@click.command("table")
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...")
@options("recipe", "seeds", "results", "data")
@click.option("--format", "style", default="text", metavar="NAME", help="text, markdown, csv or json.")
@click.option("--out", metavar="FILE", help="Write there instead of standard output.")
@options("json")
def table_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    style: str,
    out: str | None,
    as_json: bool,
) -> None:
    """The table of an experiment, from its records alone."""
    from metaformer_ablate.analysis.tables import FORMATS, build_table, render
    from metaformer_ablate.data.files import DataFolder
    from metaformer_ablate.experiment import plan
    from metaformer_ablate.spec import unknown

    style = "json" if as_json else style
    if style not in FORMATS:
        raise RequestError(f"--format: {unknown('format', style, FORMATS)}")
    name, overrides = one_name(words, "experiment")
    chosen = plan(name, recipe or "digits", overrides)
    store = store_of(results)
    table = build_table(chosen, store, DataFolder.choose(data), seeds_of(seeds))
    tell_problems(store)
    text = render(table, style)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--out {out}: cannot be written: {error.strerror}") from None
