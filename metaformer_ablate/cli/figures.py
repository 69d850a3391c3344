"""`ablate plot`: figures from records alone."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metaformer_ablate.cli.completion import complete_from, complete_one_experiment
from metaformer_ablate.cli.options import NUMBER, examples, experiment_of, one_name, options, seeds_of, warn_problems
from metaformer_ablate.errors import RequestError

if TYPE_CHECKING:
    from metaformer_ablate.analysis.figures.data import FigureData
    from metaformer_ablate.analysis.figures.look import Look

logger = logging.getLogger(__name__)


_PLOT_EXAMPLES = examples(
    "ablate plot pooling_size",
    "ablate plot table5 --recipe cifar10_small --width 3.3in --format pdf",
    "ablate plot pooling_size --kind curves --y train_loss",
)


@click.command("plot", epilog=_PLOT_EXAMPLES)
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...", shell_complete=complete_one_experiment)
@click.option(
    "--kind",
    metavar="NAME",
    help="rows, curves, cost, paper or seeds (default: a figure of each).",
    shell_complete=complete_from("rows", "curves", "cost", "paper", "seeds"),
)
@click.option(
    "--x",
    metavar="NAME",
    help="Of cost: macs (default), params or images_per_second.",
    shell_complete=complete_from("macs", "params", "images_per_second"),
)
@click.option("--y", metavar="NAME", help="Of curves: a column of history.csv, as train_loss (default: the metric's).")
@options("recipe", "tuned", "seeds with records", "results", "data")
@click.option(
    "--format",
    "style",
    metavar="NAME",
    help="png (default), svg or pdf.",
    shell_complete=complete_from("png", "svg", "pdf"),
)
@click.option("--width", metavar="LENGTH", help="3.3in, 84mm, 8.4cm or 240pt (default: 6.9in, the text of a page).")
@click.option("--font-size", type=NUMBER, metavar="POINTS", help="Of all letters (default: 8, or 7 in a column).")
@click.option("--caption", is_flag=True, help="Write the caption at the foot of the figure; --json always has it.")
@click.option(
    "--labels",
    metavar="NAME",
    help="short (default: what the experiment's rows have under `short`) or full.",
    shell_complete=complete_from("short", "full"),
)
@click.option("--out", metavar="FILE", help="Of one kind: a .png, .svg or .pdf file (default: in RESULTS/figures).")
@options("metric", "json")
def plot_command(
    words: tuple[str, ...],
    kind: str | None,
    x: str | None,
    y: str | None,
    recipe: str | None,
    tuned: bool,
    seeds: str | None,
    results: str | None,
    data: str | None,
    style: str | None,
    width: str | None,
    font_size: float | None,
    caption: bool,
    labels: str | None,
    out: str | None,
    metric: str | None,
    as_json: bool,
) -> int:
    """Figures of an experiment, from its records alone.

    Prints the files. With --json it prints the numbers that would be drawn.
    """
    from metaformer_ablate.analysis.figures.kinds import KINDS
    from metaformer_ablate.analysis.figures.kinds import caption as caption_of
    from metaformer_ablate.analysis.figures.rows import has_numbers
    from metaformer_ablate.records.status import nothing_there

    given = {name: value for name, value in (("x", x), ("y", y)) if value is not None}
    _check_kind(kind, given)
    style = _format(style, kind, out)
    look = _look(width, font_size, caption, labels)
    name, overrides = one_name(words, "experiment")
    experiment = experiment_of(name, recipe, overrides, results, data, tuned)
    store, wanted = experiment.store, seeds_of(seeds)
    figures = experiment.figure_data(None if kind is None else [kind], seeds=wanted, metric=metric, **given)
    warn_problems(store)
    if not (shown := any(map(has_numbers, figures.values()))):
        logger.info(f"nothing to draw: {nothing_there(experiment.plan, store, wanted)}")
    if as_json:
        numbers = {one: {**figure.to_json(), "caption": caption_of(figure, look)} for one, figure in figures.items()}
        tree = {"experiment": experiment.name, "recipe": experiment.recipe, "figures": numbers}
        click.echo(json.dumps(tree, indent=1, allow_nan=False))
    if not shown or (as_json and out is None):
        return 0 if shown else 1
    for one, figure in figures.items():
        of_kind_values = [value for key, value in given.items() if key in KINDS[one].options]
        named = [*([] if metric is None else [metric]), *of_kind_values]
        path = store.path / "figures" / _file_name(figure, named, style) if out is None else Path(out)
        _draw_into(path, figure, look, make_folder=out is None)
        click.echo(str(path), err=as_json)
    return 0


def _check_kind(kind: str | None, given: dict[str, str]) -> None:
    """Raises RequestError for an unknown kind of figure, and for options that it does not read."""
    from metaformer_ablate.analysis.figures.kinds import KINDS
    from metaformer_ablate.errors import unknown

    if kind is not None and kind not in KINDS:
        raise RequestError(f"--kind: {unknown('kind of figure', kind, KINDS)}")
    kinds = list(KINDS) if kind is None else [kind]
    for name in given:
        if not any(name in KINDS[one].options for one in kinds):
            readers = ", ".join(one for one in KINDS if name in KINDS[one].options)
            raise RequestError(f"--{name} is not read by a figure of kind {kinds[0]}; it is for {readers}")


def _format(style: str | None, kind: str | None, out: str | None) -> str:
    """The format of the files: --format, or what the ending of --out says."""
    from metaformer_ablate.analysis.figures.kinds import KINDS
    from metaformer_ablate.drawing.canvas import FORMATS
    from metaformer_ablate.errors import unknown

    if style is not None and style not in FORMATS:
        raise RequestError(f"--format: {unknown('format', style, FORMATS)}")
    if out is None:
        return style or "png"
    if kind is None:
        raise RequestError(f"--out {out} is one file; say which figure with --kind: {', '.join(KINDS)}")
    ending = Path(out).suffix.removeprefix(".").lower()
    if ending not in FORMATS or style not in (None, ending):
        wanted = ", ".join(f".{name}" for name in ([style] if style else FORMATS))
        raise RequestError(f"--out {out}: the ending says the format; allowed: {wanted}")
    return ending


def _file_name(figure: FigureData, named: list[str], style: str) -> str:
    from metaformer_ablate.settings.layers import digest

    # Overrides show other runs: their figures stand beside the recipe's own and do not replace them.
    overrides = digest(sorted(figure.overrides))[:6] if figure.overrides else ""
    parts = [figure.experiment, figure.recipe, overrides, figure.kind, *named]
    return "-".join(part for part in parts if part) + f".{style}"


def _look(width: str | None, font_size: float | None, caption: bool, labels: str | None) -> Look:
    from metaformer_ablate.analysis.figures.look import Look, inches
    from metaformer_ablate.errors import unknown

    if labels not in (None, "short", "full"):
        raise RequestError(f"--labels: {unknown('kind of label', str(labels), ('short', 'full'))}")
    look = Look(font=font_size, caption=caption, full_labels=labels == "full")
    return look if width is None else replace(look, width=inches(width, "--width"))


def _draw_into(path: Path, figure: FigureData, look: Look, make_folder: bool) -> None:
    from metaformer_ablate.analysis.figures.kinds import draw
    from metaformer_ablate.drawing.canvas import to_bytes

    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(draw(figure, look), path.suffix[1:].lower()))
    except OSError as error:
        raise RequestError(f"--out {path}: cannot be written: {error.strerror}") from None
