"""`ablate plot`: figures from records alone."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import click

from metaformer_ablate.cli.options import one_name, options, seeds_of, store_of, warn_problems
from metaformer_ablate.errors import RequestError

logger = logging.getLogger(__name__)


@click.command("plot")
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...")
@click.option("--kind", metavar="NAME", help="rows, curves, cost, paper or seeds (default: a figure of each).")
@click.option("--x", metavar="NAME", help="Of cost: macs (default), params or images_per_second.")
@click.option("--y", metavar="NAME", help="Of curves: val_top1 (default), val_loss or train_loss.")
@options("recipe", "seeds", "results", "data")
@click.option("--format", "style", metavar="NAME", help="png (default), svg or pdf.")
@click.option("--out", metavar="FILE", help="Of one kind: a .png, .svg or .pdf file (default: in RESULTS/figures).")
@options("json")
def plot_command(
    words: tuple[str, ...],
    kind: str | None,
    x: str | None,
    y: str | None,
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    style: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Figures of an experiment, from its records alone; prints the files. With --json their numbers instead."""
    from metaformer_ablate.analysis.figures.kinds import KINDS, draw, figure_data
    from metaformer_ablate.analysis.figures.style import FORMATS, to_bytes
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.errors import unknown
    from metaformer_ablate.records.status import no_records_hint
    from metaformer_ablate.settings.layers import digest
    from metaformer_ablate.spec.plan import plan

    if kind is not None and kind not in KINDS:
        raise RequestError(f"--kind: {unknown('kind of figure', kind, KINDS)}")
    kinds = list(KINDS) if kind is None else [kind]
    chosen_options = {name: value for name, value in (("x", x), ("y", y)) if value is not None}
    for name in chosen_options:
        if not any(name in KINDS[one].options for one in kinds):
            readers = ", ".join(one for one in KINDS if name in KINDS[one].options)
            raise RequestError(f"--{name} is not read by a figure of kind {kinds[0]}; it is for {readers}")
    if style is not None and style not in FORMATS:
        raise RequestError(f"--format: {unknown('format', style, FORMATS)}")
    if out is not None:
        if kind is None:
            raise RequestError(f"--out {out} is one file; say which figure with --kind: {', '.join(KINDS)}")
        ending = Path(out).suffix.removeprefix(".").lower()
        if ending not in FORMATS or style not in (None, ending):
            wanted = ", ".join(f".{name}" for name in ([style] if style else FORMATS))
            raise RequestError(f"--out {out}: the ending says the format; allowed: {wanted}")
        style = ending
    name, overrides = one_name(words, "experiment")
    plan_ = plan(name, recipe or "digits", overrides)
    store, folder, wanted_seeds = store_of(results), DataFolder.choose(data), seeds_of(seeds)
    figures = {}
    for one in kinds:
        of_kind = {key: value for key, value in chosen_options.items() if key in KINDS[one].options}
        figures[one] = figure_data(one, plan_, store, folder, wanted_seeds, **of_kind)
    warn_problems(store)
    if (hint := no_records_hint(plan_, store, wanted_seeds)) is not None:
        logger.warning(hint)
    if as_json:
        tree = {"experiment": plan_.experiment.name, "recipe": plan_.recipe.name, "figures": figures}
        click.echo(json.dumps(tree, indent=1, allow_nan=False))
    if as_json and out is None:
        return
    for one, numbers in figures.items():
        # Overrides show other runs: their figures stand beside the recipe's own and do not replace them.
        parts = [plan_.experiment.name, plan_.recipe.name, digest(sorted(overrides))[:6] if overrides else "", one]
        parts += [value for key, value in chosen_options.items() if key in KINDS[one].options]
        file = "-".join(part for part in parts if part) + f".{style or 'png'}"
        path = store.path / "figures" / file if out is None else Path(out)
        try:
            if out is None:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_bytes(draw(numbers), path.suffix[1:].lower()))
        except OSError as error:
            raise RequestError(f"--out {path}: cannot be written: {error.strerror}") from None
        click.echo(str(path), err=as_json)
