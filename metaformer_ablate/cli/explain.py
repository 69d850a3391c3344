"""`ablate explain`: what a row of an experiment is, against its baseline or as a whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_experiment, complete_rows, complete_settings
from metaformer_ablate.cli.options import examples, options, say, split_words
from metaformer_ablate.errors import RequestError, visible
from metaformer_ablate.system.console import folded, out_width

if TYPE_CHECKING:
    from metaformer_ablate.spec.plan import Plan

_EXAMPLES = examples(
    "ablate explain table5 identity",
    "ablate explain table5 ppaa --recipe imagenet",
    "ablate explain pooling_size pool5 --all",
)


@click.command("explain", epilog=_EXAMPLES)
@click.argument("experiment", shell_complete=complete_experiment)
@click.argument("row", default="", metavar="ROW", shell_complete=complete_rows)
@click.argument("words", nargs=-1, metavar="[KEY.PATH=VALUE]...", shell_complete=complete_settings)
@options("recipe")
@click.option(
    "--all", "whole", is_flag=True, help="The whole resolved spec of the row, with where each value came from."
)
@options("json")
def explain_command(
    experiment: str, row: str, words: tuple[str, ...], recipe: str | None, whole: bool, as_json: bool
) -> None:
    """How a row's resolved spec differs from the baseline's.

    A difference that the row does not set itself is marked: it follows from what the row sets.
    """
    chosen = _plan_with_row(experiment, row, words, recipe)
    for name in (row, *(() if whole else (chosen.experiment.baseline,))):
        if name in chosen.not_applicable:
            raise RequestError(f"row {name!r} under {chosen.recipe.name}: {chosen.not_applicable[name]}")
    if whole:
        tree = _whole_tree(chosen, row)
        click.echo(json.dumps(tree, indent=1) if as_json else _whole_text(tree), nl=as_json)
        return
    tree = _difference_tree(chosen, row)
    if as_json:
        click.echo(json.dumps(tree, indent=1))
    else:
        say(_difference_text(tree))


def _plan_with_row(experiment: str, row: str, words: tuple[str, ...], recipe: str | None) -> Plan:
    """The plan of an experiment that has a row. Raises RequestError where it has not."""
    from metaformer_ablate.errors import unknown
    from metaformer_ablate.spec.plan import plan

    names, overrides = split_words(words)
    if names:
        raise RequestError(f"give one experiment, one row, then overrides as key.path=value; found also {names[0]!r}")
    chosen = plan(experiment, recipe or "digits", overrides)
    if not row or "=" in row:
        raise RequestError(f"give a row of {experiment}: {', '.join(chosen.experiment.rows)}")
    if row not in chosen.experiment.rows:
        raise RequestError(f"{chosen.experiment.source}: {unknown('row', row, chosen.experiment.rows)}")
    return chosen


def _of_row(chosen: Plan, row: str) -> dict[str, Any]:
    return {
        "experiment": chosen.experiment.name,
        "recipe": chosen.recipe.name,
        "baseline": chosen.experiment.baseline,
        "row": row,
        "label": chosen.experiment.rows[row].label,
        "set": chosen.experiment.rows[row].sets(chosen.recipe.name),
    }


def _difference_tree(chosen: Plan, row: str) -> dict[str, Any]:
    from metaformer_ablate.spec.notes import differences, row_notes

    base = chosen.experiment.baseline
    either = [
        *chosen.experiment.rows[base].sets(chosen.recipe.name),
        *chosen.experiment.rows[row].sets(chosen.recipe.name),
    ]
    return {
        **_of_row(chosen, row),
        "differences": [
            {
                "path": path,
                "value": here,
                "baseline": there,
                "declared": any(path == name or path.startswith(f"{name}.") for name in either),
            }
            for path, here, there in differences(chosen.specs[row], chosen.specs[base])
        ],
        "notes": row_notes(chosen, row),
    }


def _difference_text(tree: dict[str, Any]) -> str:
    if tree["row"] == tree["baseline"]:
        return f"{tree['row']} is the baseline of {tree['experiment']}: there is no difference"
    base = "" if tree["baseline"] == "baseline" else f" {tree['baseline']}"
    lines = [f"{tree['row']} ({visible(tree['label'])}) under {tree['recipe']}, against the baseline{base}:"]
    for line in tree["differences"]:
        follows = "" if line["declared"] else "  (follows)"
        lines.append(f"  {line['path']}: {json.dumps(line['baseline'])} -> {json.dumps(line['value'])}{follows}")
    lines.append("It sets " + ", ".join(f"{path}={json.dumps(value)}" for path, value in tree["set"].items()) + ".")
    lines += [f"Note: {visible(note)}" for note in tree["notes"]]
    return "\n".join(lines)


def _whole_tree(chosen: Plan, row: str) -> dict[str, Any]:
    from metaformer_ablate.spec.origins import origins

    spec = {found.path: {"value": found.value, "from": found.source} for found in origins(chosen, row)}
    return {**_of_row(chosen, row), "spec": spec}


def _whole_text(tree: dict[str, Any]) -> str:
    """The spec as a table, a section of it for each section of the spec; settings that nothing reads by their names.

    In a terminal that is too narrow for the words of a table, a line per setting.
    """
    from metaformer_ablate.analysis.tables.columns import LEFT
    from metaformer_ablate.analysis.tables.text import draw, text_width

    read = {path: found for path, found in tree["spec"].items() if not found["from"].startswith("nothing reads it")}
    paths = list(read)
    lines = [
        ([path, _value_text(read[path]["value"]), read[path]["from"]], _ends_section(path, following))
        for path, following in zip(paths, [*paths[1:], ""], strict=True)
    ]
    unread = [path for path in tree["spec"] if path not in read]
    notes = [f"Nothing in this row reads: {', '.join(unread)}. --json says why."] if unread else []
    title = f"{tree['row']} ({tree['label']}) of {tree['experiment']} under {tree['recipe']}"
    longest = (max(len(word) for cells, _ in lines for word in cells[i].split()) + 3 for i in range(3))
    if sum(longest) < text_width():
        return draw(title, ["Setting", "Value", "From"], [LEFT, LEFT, LEFT], lines, notes)
    told = [
        f"  {path}: {value}  ({source.replace(' (', ', ').removesuffix(')')})" for (path, value, source), _ in lines
    ]
    return "\n".join(folded(visible(line), out_width(), "    ") for line in [title, "", *told, "", *notes]) + "\n"


def _ends_section(path: str, following: str) -> bool:
    return bool(following) and path.partition(".")[0] != following.partition(".")[0]


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")
