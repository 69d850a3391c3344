"""`ablate init`: a new experiment file, commented, that runs as it is."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from metaformer_ablate.cli.options import examples, say
from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.registry import get_task

if TYPE_CHECKING:
    from metaformer_ablate.models.class_arguments import Argument

# Under every recipe the rows train, and each differs from the baseline in one setting.
_TEMPLATE = """\
# What is asked: does it matter which token mixer stands in a PoolFormer, and in which stages?
# Rows:  ablate show {name}
# Run:   ablate run {name}{data} --seeds 3
# Then:  ablate table {name}, ablate plot {name}, ablate explain {name} identity
title: "{title}"
# The row that the others are compared with, seed by seed.
baseline: pooling
# What all rows set, the baseline too; `ablate show {bare} --recipe NAME` says what it costs under another recipe.
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


# Of a model of one's own: every row is of its class, and differs from the baseline in one argument.
_OF_CLASS = """\
# What is asked: which of the parts of {class_name} matter?
# Rows:  ablate show {name}
# Run:   ablate run {name}{data} --seeds 3
# Then:  ablate table {name}, ablate plot {name}
title: "{title}"
# The row that the others are compared with, seed by seed.
baseline: as_it_is
# What all rows set. The class is built as {class_name}(**model.args, num_classes=N, in_chans=C), its weights drawn
# from the seed, and maps images [B, C, H, W] to logits [B, N]. The path is from the folder one stands in.
set:
  model.class: {target}
{arguments}
rows:
  # A name for commands; label and group as the table shows them; what the row changes, and nothing else.
  as_it_is:
    label: {class_name}
    group: Baseline
    set: {{}}
  # The next row changes one argument:
  # other:
  #   label: {class_name}, {changed} changed
  #   set: {{model.args.{changed}: {value}}}
"""


_INIT_EXAMPLES = examples(
    "ablate init my_idea",
    "ablate init my_study --model my_net.py:MyNet",
    "ablate init my_idea --data my_images",
)


@click.command("init", epilog=_INIT_EXAMPLES)
@click.argument("name", metavar="NAME")
@click.option("--model", "target", metavar="FILE.py:CLASS", help="Of a PyTorch model of one's own, in place of ours.")
@click.option("--data", metavar="DIR", help="A folder of images: write a recipe for it, too.")
def init_command(name: str, target: str | None, data: str | None) -> None:
    """A new experiment file, commented, that runs as it is.

    It is ./experiments/NAME.yaml: a baseline, rows, and what else a row may hold. With --data also a recipe for a
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
    title, recipe = name.replace("_", " ").capitalize(), None
    words = {"name": command, "data": where, "title": title}
    text, rows, first = _TEMPLATE.format(**words, bare=name, key=get_task().reported.name), "two rows", ""
    if target is not None:
        (text, first), rows = _of_class(words, target), f"no other row of {target} yet"
    if data is not None:
        from metaformer_ablate.cli.init_data import new_recipe

        recipe = new_recipe(name, data)
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None
    say(
        f"{path}: a baseline and {rows}. Next: {first}ablate show {command}, then ablate run {command}{where} --seeds 3"
    )
    if recipe is not None:
        say(recipe)


def _of_class(words: Mapping[str, str], target: str) -> tuple[str, str]:
    """The experiment of a class of the user's own, and what is to be done before it runs, if anything."""
    from metaformer_ablate.models.class_arguments import GIVEN, Argument
    from metaformer_ablate.spec.own_class import constructor_of

    constructor = constructor_of(target)
    class_name = target.rpartition(":")[2]
    own = [argument for argument in constructor.arguments if argument.name not in GIVEN]
    lacking = [argument.name for argument in own if argument.default is None]
    lines = ["  # Its arguments, as the class has them; a line without its # sets another value for all rows:"]
    lines = (
        [*lines, *map(_argument_line, own)] if own else ["  # It has no arguments of its own that rows could change."]
    )
    changed = next((each for each in own if each.default in ("True", "False")), (own or [Argument("width")])[0])
    value = {"True": "false", "False": "true"}.get(str(changed.default), "...")
    text = _OF_CLASS.format(
        **words,
        class_name=class_name,
        target=target,
        arguments="\n".join(lines),
        changed=changed.name,
        value=value,
    )
    return text, f"set {', '.join(f'model.args.{each}' for each in lacking)} in it, then " if lacking else ""


def _argument_line(argument: Argument) -> str:
    """A comment of the file: `# model.args.width: 64    # int`."""
    said = [argument.annotation] if argument.annotation else []
    try:
        value = json.dumps(ast.literal_eval(argument.default or ""))
    except (ValueError, TypeError, SyntaxError):  # none, or one that only running the code would tell
        value = "..."
        said.append(f"its default is {argument.default}" if argument.default else "it has no default: set it")
    return f"  # model.args.{argument.name}: {value}" + (f"    # {', '.join(said)}" if said else "")
