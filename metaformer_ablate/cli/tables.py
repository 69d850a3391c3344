"""`ablate table` and `ablate compare`: tables from records alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_compared, complete_from, complete_one_experiment
from metaformer_ablate.cli.options import (
    INTEGER,
    NUMBER,
    examples,
    experiment_of,
    notes_option,
    one_name,
    options,
    seeds_of,
    split_words,
    store_of,
    warn_problems,
)
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.console import out_width

if TYPE_CHECKING:
    from metaformer_ablate.analysis.tables.comparison import Comparison
    from metaformer_ablate.analysis.tables.latex import Latex

logger = logging.getLogger(__name__)


_format = click.option(
    "--format",
    "style",
    default="text",
    metavar="NAME",
    shell_complete=complete_from("text", "markdown", "csv", "latex", "html", "json"),
    help="text (default), markdown, csv, latex, html or json.",
)


_out = click.option("--out", metavar="FILE", help="Write there instead of standard output.")


_digits = click.option("--digits", type=INTEGER, metavar="N", help="Decimals, 0 to 6 (default: the metric's).")


_TABLE_EXAMPLES = examples(
    "ablate table pooling_size",
    "ablate table table5 --recipe cifar10_small --format latex --out table5.tex",
    "ablate table table5 --columns row,n,difference,p --sort -difference",
    "ablate table pooling_size --runs",
    "ablate table pooling_size --power 0.5",
)


_COLUMNS = (
    "Columns and their order, of group, row, name, params, macs, the metric, mean, bootstrap, n, difference, effect, "
    "better, p, equal, images, paper and status."
)


@click.command("table", epilog=_TABLE_EXAMPLES)
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...", shell_complete=complete_one_experiment)
@options("recipe", "tuned", "seeds with records", "results", "data")
@_format
@click.option("--columns", metavar="LIST", help=_COLUMNS)
@_digits
@click.option("--sort", metavar="COLUMN", help="Order the rows by a column; -COLUMN from the largest.")
@click.option("--transposed", is_flag=True, help="Rows become columns.")
@click.option("--images", is_flag=True, help="Also: do the trained models differ on these images (McNemar)?")
@click.option(
    "--power", type=NUMBER, metavar="POINTS", help="Also: how many seeds find a difference of so many points?"
)
@click.option(
    "--equivalent", type=NUMBER, metavar="POINTS", help="Also: which rows are shown to be within that of the baseline?"
)
@click.option(
    "--fit",
    metavar="NAME",
    shell_complete=complete_from("column", "page"),
    help="LaTeX: column (default), or page with more columns.",
)
@click.option("--caption", metavar="TEXT", help="LaTeX: the caption (default: the table's title).")
@click.option("--label", metavar="NAME", help="LaTeX: the label for references (default: from the title).")
@click.option("--bold", is_flag=True, help="LaTeX: the best mean in bold.")
@click.option("--runs", "list_runs", is_flag=True, help="The runs behind every number instead: text, csv or json.")
@notes_option
@click.option("--strict", is_flag=True, help="Exit code 1 where the fairness audit finds anything.")
@_out
@options("metric", "json")
def table_command(
    words: tuple[str, ...],
    recipe: str | None,
    tuned: bool,
    seeds: str | None,
    results: str | None,
    data: str | None,
    style: str,
    columns: str | None,
    digits: int | None,
    sort: str | None,
    transposed: bool,
    images: bool,
    power: float | None,
    equivalent: float | None,
    fit: str | None,
    caption: str | None,
    label: str | None,
    bold: bool,
    list_runs: bool,
    notes: bool,
    strict: bool,
    out: str | None,
    metric: str | None,
    as_json: bool,
) -> int:
    """The table of an experiment, from its records alone."""
    from metaformer_ablate.analysis.tables.columns import choose_columns
    from metaformer_ablate.analysis.tables.table import plan_task
    from metaformer_ablate.api.table import check_points

    allowed = ("text", "csv", "json") if list_runs else None
    shaping = {"--columns": columns is not None, "--digits": digits is not None, "--transposed": transposed}
    style = _style("json" if as_json else style, digits, shaping, allowed)
    latex = _latex(style, fit, caption, label, bold)
    check_points("--power", power)
    check_points("--equivalent", equivalent)
    name, overrides = one_name(words, "experiment")
    experiment = experiment_of(name, recipe, overrides, results, data, tuned)
    shown = None if columns is None else [word.strip() for word in columns.split(",")]
    if shown is not None:
        choose_columns(plan_task(experiment.plan).metric(metric), shown)
    asked: dict[str, Any] = {"images": images or "images" in (shown or ()), "power": power, "equivalent": equivalent}
    table = experiment.table(metric, seeds=seeds_of(seeds), **asked)
    warn_problems(experiment.store)
    table = table if sort is None else table.sorted(sort)
    if list_runs:
        from metaformer_ablate.analysis.tables.runs import list_runs as runs_of
        from metaformer_ablate.analysis.tables.runs import render_runs

        text = render_runs(table, runs_of(table), style)
    else:
        whole = notes or out is not None or out_width() is None
        text = table.to_text(style, shown, digits, transposed, notes=whole, latex=latex)
    _write(text, out)
    return _strict(len(table.audit)) if strict else 0


_COMPARE_EXAMPLES = examples(
    "ablate compare digits paper table5",
    "ablate compare cifar10_small cifar10_mixing token_mixers",
    "ablate compare cifar10_small cifar10_small:train.epochs=30 table5",
    "ablate compare cifar10_small paper table5 --rows pool5,pool7,relu,silu",
    "ablate compare cifar10_small paper table5 --plot slope.png",
)


@click.command("compare", epilog=_COMPARE_EXAMPLES)
@click.argument(
    "words",
    nargs=-1,
    metavar="RECIPE RECIPE... EXPERIMENT [KEY.PATH=VALUE]...",
    shell_complete=complete_compared,
)
@options("tuned", "seeds with records", "results", "data")
@click.option("--rows", metavar="LIST", help="Only these rows, by name: baseline,pool5 (default: all).")
@_format
@_digits
@click.option("--plot", metavar="FILE", help="Also: a figure of it (.png, .svg or .pdf).")
@click.option(
    "--kind",
    metavar="NAME",
    shell_complete=complete_from("slope", "agreement"),
    help="Of --plot: slope (default), the ranks; or agreement, with the paper, of each recipe.",
)
@_out
@options("metric", "json")
def compare_command(
    words: tuple[str, ...],
    tuned: bool,
    seeds: str | None,
    results: str | None,
    data: str | None,
    rows: str | None,
    style: str,
    digits: int | None,
    plot: str | None,
    kind: str | None,
    out: str | None,
    metric: str | None,
    as_json: bool,
) -> None:
    """An experiment under two recipes or more, with ranks.

    `paper` stands for the numbers that the paper prints. A recipe may have overrides of its own:
    cifar10_small:train.epochs=30,train.lr=4e-3. Words at the end apply to all.
    """
    from metaformer_ablate.analysis.tables.comparison import build_comparison
    from metaformer_ablate.analysis.tables.comparison_sheet import render_comparison
    from metaformer_ablate.data.folder import DataFolder

    style = _style("json" if as_json else style, digits, {"--digits": digits is not None})
    recipes, name, overrides = _compared(words)
    if kind is not None and plot is None:
        raise RequestError("--kind: only with --plot FILE")
    store = store_of(results)
    folder = DataFolder.choose(data)
    chosen = None if rows is None else [word.strip() for word in rows.split(",")]
    comparison = build_comparison(name, recipes, overrides, store, folder, seeds_of(seeds), metric, tuned, chosen)
    warn_problems(store)
    if plot is not None:
        _plot(comparison, plot, kind or "slope")
    _write(render_comparison(comparison, style, digits), out)


def _compared(words: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """The recipes with their own overrides, the experiment, and the overrides of all."""
    own = [word for word in words if ":" in word.partition("=")[0] and "=" in word]
    names, overrides = split_words([word for word in words if word not in own])
    last = max((i for i, word in enumerate(words) if word in names), default=-1)
    if len(names) + len(own) < 3 or not names or any(word in own for word in words[last:]):
        found = " ".join(names + own) or "none"
        raise RequestError(f"give two recipes or more, then one experiment, then overrides; found {found}")
    return [word for word in words[:last] if word in (*names, *own)], words[last], overrides


def _plot(comparison: Comparison, plot: str, kind: str) -> None:
    from metaformer_ablate.analysis.figures.kinds import draw_comparison
    from metaformer_ablate.drawing.canvas import FORMATS, to_bytes

    ending = Path(plot).suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        wanted = ", ".join(f".{name}" for name in FORMATS)
        raise RequestError(f"--plot {plot}: the ending says the format; allowed: {wanted}")
    figure = draw_comparison(comparison, kind)
    try:
        Path(plot).write_bytes(to_bytes(figure, ending))
    except OSError as error:
        raise RequestError(f"--plot {plot}: cannot be written: {error.strerror}") from None


def _latex(style: str, fit: str | None, caption: str | None, label: str | None, bold: bool) -> Latex:
    """How a table stands in a paper; only LaTeX has such options."""
    from metaformer_ablate.analysis.tables.latex import Latex

    given = {"--fit": fit is not None, "--caption": caption is not None, "--label": label is not None, "--bold": bold}
    if style != "latex" and any(given.values()):
        options = ", ".join(option for option, there in given.items() if there)
        raise RequestError(f"{options}: only with --format latex, and --format is {style!r}")
    return Latex(fit or "column", caption, label, bold)


def _style(style: str, digits: int | None, shaping: dict[str, bool], allowed: Any = None) -> str:
    """The format, checked together with the options that only tables for people have."""
    from metaformer_ablate.analysis.tables.render import FORMATS, HUMAN_FORMATS
    from metaformer_ablate.errors import unknown

    if style not in FORMATS:
        raise RequestError(f"--format: {unknown('format', style, FORMATS)}")
    if allowed and style not in allowed:
        raise RequestError(f"--format is {style!r}; allowed with --runs: {', '.join(allowed)}")
    given = [option for option, there in shaping.items() if there]
    if given and (allowed or style not in HUMAN_FORMATS):
        what = "--runs" if allowed else style
        raise RequestError(f"{given[0]} has no meaning for {what}, which holds every number unrounded")
    if digits is not None and not 0 <= digits <= 6:
        raise RequestError(f"--digits is {digits}; allowed: an integer from 0 to 6")
    return style


def _write(text: str, out: str | None) -> None:
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--out {out}: cannot be written: {error.strerror}") from None


def _strict(findings: int) -> int:
    if findings:
        logger.info(f"--strict: the audit has {findings} findings; the rows differ in more than they declare")
    return 1 if findings else 0
