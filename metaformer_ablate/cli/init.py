"""`ablate init`: a new experiment file, commented, that runs as it is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from metaformer_ablate.cli.options import examples, say
from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.registry import get_task

# Under every recipe the rows train, and each differs from the baseline in one setting.
_TEMPLATE = """\
# What is asked: does it matter which token mixer stands in a PoolFormer, and in which stages?
# Rows:  ablate show {name}
# Run:   ablate run {name} --seeds 3
# Then:  ablate table {name}, ablate plot {name}, ablate explain {name} identity
title: "{title}"
# The row that the others are compared with, seed by seed.
baseline: pooling
# What all rows set, the baseline too; `ablate show {name} --recipe NAME` says what it costs elsewhere than on digits.
# set: {{model.size: s12}}
rows:
  # A name for commands; label and group as the table shows them (figures show `short`, where there is one);
  # what the row changes, and nothing else.
  pooling:
    label: Pooling
    group: Baseline
    set: {{}}
  # One value for all four stages. `ablate list` has the mixers, norms and activations, yours of parts.yaml too.
  identity:
    label: Pooling -> Identity mapping
    group: Token mixers
    set: {{model.token_mixer: identity}}
  # Or one per stage: a hybrid.
  attention_last:
    label: Pooling -> Attention in the last stage
    short: Attention, stage 4
    group: Hybrid stages
    set: {{model.token_mixer: [pooling, pooling, pooling, attention]}}
  # Other settings go the same way, such as {{model.pool_size: 5}} or {{model.norm: layer_norm}}. One that does not
  # exist, or that nothing in the row reads, is an error. Numbers that a paper printed: paper: {{table: 5, {key}: 77.2}}
"""


_INIT_EXAMPLES = examples(
    "ablate init my_idea",
    "ablate init my_idea --data my_images",
)


@click.command("init", epilog=_INIT_EXAMPLES)
@click.argument("name", metavar="NAME")
@click.option("--data", metavar="DIR", help="A folder of images: write a recipe for it, too.")
def init_command(name: str, data: str | None) -> None:
    """A new experiment file, commented, that runs as it is.

    It is ./experiments/NAME.yaml: a baseline, two rows, and what else a row may hold. With --data also a recipe for a
    folder of images, which is looked at once: ./experiments/recipes/NAME.yaml.
    """
    from metaformer_ablate.spec.experiment import find_all

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise RequestError(
            f"the name {name!r} is not one for an experiment; allowed: small letters, digits and _, "
            f"beginning with a letter, as in 'my_mixers'; the file is then experiments/my_mixers.yaml"
        )
    path = Path("experiments") / f"{name}.yaml"
    if path.exists():
        raise RequestError(f"{path} is there already; choose another name or edit it")
    if (there := find_all("experiment").get(name)) is not None:
        raise RequestError(f"the package has an experiment {name!r} ({there}); choose another name")
    command, where = (name, "") if data is None else (f"{name} --recipe {name}", f" --data {shlex.quote(data)}")
    recipe = None
    if data is not None:
        from metaformer_ablate.cli.init_data import new_recipe

        recipe = new_recipe(name, data)
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            title, key = name.replace("_", " ").capitalize(), get_task().reported.name
            file.write(_TEMPLATE.format(name=command, title=title, key=key))
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None
    say(f"{path}: a baseline and two rows. Next: ablate show {command}, then ablate run {command}{where} --seeds 3")
    if recipe is not None:
        say(recipe)
