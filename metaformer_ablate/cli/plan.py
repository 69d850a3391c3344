"""`ablate show` and `ablate cost`: what an experiment would train and what its models cost. Trains nothing."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_model_or_experiment, complete_one_experiment, complete_recipes
from metaformer_ablate.cli.options import (
    INTEGER,
    examples,
    notes_option,
    one_name,
    options,
    say,
    seeds_of,
    store_of,
    warn_problems,
)
from metaformer_ablate.cli.refused import costs_of_rows, tell_refused
from metaformer_ablate.cli.show_text import COLUMNS, choose_columns, show_text
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.console import out_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metaformer_ablate.cost.counting import Cost
    from metaformer_ablate.records.status import RunState
    from metaformer_ablate.spec.plan import Plan

logger = logging.getLogger(__name__)


_SHOW_EXAMPLES = examples(
    "ablate show pooling_size",
    "ablate show table5 --recipe imagenet",
    "ablate show table5 --columns row,params,macs,runs",
)


@click.command("show", epilog=_SHOW_EXAMPLES)
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...", shell_complete=complete_one_experiment)
@options("recipe", "seeds with records", "results", "data")
@click.option("--columns", metavar="LIST", help=f"Columns and their order, of {', '.join(COLUMNS)}.")
@notes_option
@options("json")
def show_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    columns: str | None,
    notes: bool,
    as_json: bool,
) -> int:
    """The rows of an experiment: settings, cost, runs, time left.

    Also the paper's numbers. Trains nothing, and needs no data.
    """
    from metaformer_ablate.cost.cost import count
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.status import as_dict, seeds_with_records, stray_seeds
    from metaformer_ablate.spec.plan import plan
    from metaformer_ablate.sweep.jobs import estimate_in_words, estimate_seconds, plan_jobs

    if columns is not None and as_json:
        raise RequestError("--columns has no meaning for JSON, which holds every column")
    shown = None if columns is None else choose_columns(columns)
    name, overrides = one_name(words, "experiment")
    chosen = plan(name, recipe or "digits", overrides)
    store, folder = store_of(results), DataFolder.choose(data)
    wanted = seeds_of(seeds) or seeds_with_records(chosen, store)
    jobs, states = plan_jobs([chosen], wanted, store, folder)
    by_id = {state.run_id: state for state in states}
    costs, refused = costs_of_rows(chosen.specs)
    jobs = [job for job in jobs if not any(job.spec == chosen.spec(row, job.spec.seed) for row in refused)]
    rows = [_row(chosen, name, costs.get(name), refused.get(name)) for name in chosen.experiment.rows]
    for row in rows:
        spec = chosen.specs.get(row["name"])  # none where the row is not applicable
        row["runs"] = [] if spec is None else [as_dict(by_id[run_id]) for run_id in spec.ids(wanted)]
    tree = {
        "experiment": chosen.experiment.name,
        "recipe": chosen.recipe.name,
        "baseline": chosen.experiment.baseline,
        "embedding_field": _embedding_field(chosen),
        "rows": rows,
        **_interactions(chosen, wanted, by_id),
        "to_run": len(jobs),
        "estimated_seconds": round(estimate_seconds(jobs, states, lambda spec: count(spec).macs), 1),
    }
    warn_problems(store)
    if seeds is None and (stray := stray_seeds(_states_by_row(chosen, wanted, by_id))) is not None:
        logger.warning(stray)
    estimate = estimate_in_words(tree["estimated_seconds"], states)
    whole = notes or out_width() is None
    click.echo(json.dumps(tree, indent=1) if as_json else show_text(chosen, tree, estimate, shown, whole), nl=as_json)
    return tell_refused(refused)


def _row(chosen: Plan, name: str, cost: Cost | None, refused: str | None) -> dict[str, Any]:
    """A row with its costs, which are null where it is not applicable or its model is refused."""
    from metaformer_ablate.cost.counting import lower_bound_notes
    from metaformer_ablate.spec.notes import map_notes, row_notes

    row = chosen.experiment.rows[name]
    return {
        "name": name,
        "label": row.label,
        "group": row.group,
        "set": row.sets(chosen.recipe.name),
        "params": cost and cost.params,
        "frozen_params": cost and cost.frozen_params,
        "macs": cost and cost.macs,
        "uncounted": cost and cost.uncounted,
        "pooling_additions": cost and cost.pooling_additions,
        "pooling_bytes": cost and cost.pooling_bytes,
        "paper": row.printed(chosen.recipe.name),
        "notes": [
            *row_notes(chosen, name),
            *map_notes(chosen, name),
            *lower_bound_notes(cost.uncounted if cost else ()),
            *([f"it cannot be trained: {refused}"] if refused else []),
        ],
    }


def _states_by_row(chosen: Plan, seeds: Sequence[int], by_id: Mapping[str, RunState]) -> dict[str, list[RunState]]:
    return {row: [by_id[run_id] for run_id in spec.ids(seeds)] for row, spec in chosen.specs.items()}


def _interactions(chosen: Plan, seeds: Sequence[int], by_id: Mapping[str, RunState]) -> dict[str, Any]:
    """The pairs of rows that are also run together, under their key; nothing where the experiment names none."""
    from metaformer_ablate.records.status import as_dict

    found = [
        {
            "name": each.row.name,
            "rows": list(each.rows),
            "label": each.row.label,
            "set": each.row.sets(chosen.recipe.name),
            "notes": [f"not applicable: {each.why}"] if each.why else [],
            "runs": [as_dict(by_id[each.spec.with_seed(seed).run_id]) for seed in seeds] if each.spec else [],
        }
        for each in chosen.combinations
    ]
    return {"interactions": found} if found else {}


def _embedding_field(chosen: Plan) -> dict[str, float] | None:
    """How much of the image the baseline's embeddings show a token of the last stage, without any mixing."""
    spec = chosen.specs.get(chosen.experiment.baseline)
    if spec is None or (pixels := spec.model.embedding_field()) is None:
        return None
    if (size := spec.data.image_size) is None:
        return None
    return {"pixels": min(pixels, size), "image_size": size, "share": round(min(1.0, pixels / size), 4)}


_COST_EXAMPLES = examples(
    "ablate cost poolformer_s12",
    "ablate cost table5 --no-speed",
    "ablate cost caformer_s18 --batch 32 --device cpu",
)


@click.command("cost", epilog=_COST_EXAMPLES)
@click.argument(
    "words", nargs=-1, metavar="MODEL-OR-EXPERIMENT [KEY.PATH=VALUE]...", shell_complete=complete_model_or_experiment
)
@click.option(
    "--recipe",
    metavar="NAME",
    help="Resolution and geometry (default: imagenet for a model, else digits).",
    shell_complete=complete_recipes,
)
@options("device")
@click.option("--batch", default=8, type=INTEGER, show_default=True, help="Images at once when speed is measured.")
@click.option("--no-speed", is_flag=True, help="Count only.")
@options("json")
def cost_command(
    words: tuple[str, ...], recipe: str | None, device: str, batch: int, no_speed: bool, as_json: bool
) -> int:
    """Parameters, MACs, speed and memory of a model or experiment.

    MACs are listed by operator, and what was not counted is named.
    """
    from dataclasses import asdict

    from metaformer_ablate.api.models import named_spec
    from metaformer_ablate.cost.cost import macs_at_224
    from metaformer_ablate.cost.speed import measure_speed
    from metaformer_ablate.errors import unknown
    from metaformer_ablate.models.presets import NAMED
    from metaformer_ablate.spec.experiment import find_all
    from metaformer_ablate.spec.plan import plan
    from metaformer_ablate.spec.words import override_layer
    from metaformer_ablate.tasks.registry import task_of

    if batch < 1:
        raise RequestError(f"--batch is {batch}; allowed: an integer of at least 1")
    name, overrides = one_name(words, "model or experiment")
    if name in NAMED:
        recipe = recipe or "imagenet"
        specs = {name: named_spec(name, override_layer(overrides), recipe)}
    elif name in find_all("experiment") or name.endswith((".yaml", ".yml")):
        recipe = recipe or "digits"
        specs = plan(name, recipe, overrides).specs
    else:
        raise RequestError(unknown("model or experiment", name, [*NAMED, *find_all("experiment")]))
    rows = []
    costs, refused = costs_of_rows(specs)
    for row, cost in costs.items():
        spec = specs[row]
        line: dict[str, Any] = {"name": row, **asdict(cost), "macs_224": macs_at_224(spec)}
        line["image_size"] = spec.data.image_size
        line["image"] = list(task_of(spec).part("net").image_shape(spec))
        if not no_speed:
            from metaformer_ablate.system.devices import choose_device

            line |= asdict(measure_speed(spec, choose_device(device), batch))
        rows.append(line)
    if as_json:
        click.echo(json.dumps({"name": name, "recipe": recipe, "rows": rows}, indent=1))
    for line in [] if as_json else rows:
        say(_cost_text(line, str(recipe)))
    return tell_refused(refused)


def _cost_text(line: dict[str, Any], recipe: str) -> str:
    from metaformer_ablate.cost.counting import lower_bound_notes, open_operators

    frozen = f", {line['frozen_params']:,} frozen" if line["frozen_params"] else ""
    scales = line["params"] - line["layer_scale_params"]
    at_224 = "" if line["macs_224"] is None else f" ({line['macs_224']:,} at 224 x 224)"
    _, height, width = line["image"]
    text = [f"{line['name']} at {height} x {width} (recipe {recipe})"]
    text += [f"  parameters          {line['params']:,} trained{frozen} ({scales:,} without LayerScale, as in table 1)"]
    at_least = "at least " if open_operators(line["uncounted"]) else ""
    text += [f"  multiply-adds       {at_least}{line['macs']:,} per image{at_224}"]
    text += [f"    {part:<30}{macs:,} in all" for part, macs in line["macs_by_part"].items()]
    text += [f"    {operator:<30}{macs:,}" for operator, macs in line["macs_by_operator"].items()]
    text += [f"  note                {note}" for note in lower_bound_notes(line["uncounted"])]
    text += ["  not counted         " + ", ".join(f"{op} ({calls} calls)" for op, calls in line["uncounted"].items())]
    text += [f"  activations         {line['activations']:,} elements out of convolutions and matrix products"]
    if line["pooling_additions"]:
        moved = f"{line['pooling_bytes']:,} bytes moved in fp32"
        text += [f"  pooling             {line['pooling_additions']:,} additions, {moved}"]
    if "images_per_second" in line:
        memory = line["peak_memory_bytes"]
        how = f"batch {line['batch_size']}, fp32, {line['device']}, {line['threads']} threads"
        text += [f"  inference           {line['images_per_second']:,.1f} images per second ({how})"]
        shown = "unknown" if memory is None else f"{memory / 2**20:,.0f} MiB above the model"
        text += [f"  peak memory         {shown}"]
    return "\n".join(text)
