"""`ablate tune`: the same trials for every row, on held-out training images."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_one_experiment
from metaformer_ablate.cli.options import (
    NUMBER,
    examples,
    experiment_of,
    one_name,
    options,
    say,
    seeds_of,
    warn_problems,
)
from metaformer_ablate.errors import visible

if TYPE_CHECKING:
    from metaformer_ablate.api.execution import Execution
    from metaformer_ablate.records.tuning import Tuning

logger = logging.getLogger(__name__)


_EXAMPLES = examples(
    "ablate tune table5 --over train.lr=1e-3,2e-3,4e-3 --dry-run",
    "ablate tune token_mixers --over train.lr=1e-3,4e-3 --seeds 2",
)


@click.command("tune", epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...", shell_complete=complete_one_experiment)
@click.option("--over", multiple=True, metavar="KEY=A,B,C", help="Values of a setting; given again, their product.")
@options("recipe", "seeds", "results", "data", "device", "execution")
@click.option("--dry-run", is_flag=True, help="Say what the trials cost, and stop.")
@click.option("--retry-failed", is_flag=True, help="Train failed trials again; diverged ones are results.")
@click.option("--max-hours", type=NUMBER, metavar="H", help="Begin no trial after H hours.")
@options("metric", "json")
def tune_command(
    words: tuple[str, ...],
    over: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    device: str,
    execution: Execution,
    dry_run: bool,
    retry_failed: bool,
    max_hours: float | None,
    metric: str | None,
    as_json: bool,
) -> int:
    """Try the same values with every row, and choose for each.

    On the held-out tenth of the training images.

    The choice lies in RESULTS/tuned/EXPERIMENT.RECIPE.yaml; `--tuned` of table, run, plot and compare uses it.
    """
    from metaformer_ablate.analysis.tables.table import plan_task
    from metaformer_ablate.api.execution import check_hours
    from metaformer_ablate.api.training import view
    from metaformer_ablate.api.tuning import tell_cost, tune
    from metaformer_ablate.spec.grid import read_grid

    grid = read_grid(over)
    check_hours(max_hours, "--max-hours")
    name, overrides = one_name(words, "experiment")
    experiment = experiment_of(name, recipe, overrides, results, data)
    plan_task(experiment.plan).metric(metric)
    wanted = seeds_of(seeds) or (0,)
    if dry_run:
        to_run = tell_cost(experiment, grid, wanted)
        warn_problems(experiment.store)
        if as_json:
            click.echo(
                json.dumps({"experiment": experiment.name, "recipe": experiment.recipe, "to_run": to_run}, indent=1)
            )
        return 0
    how: dict[str, Any] = {"device": device, "retry_failed": retry_failed, "max_hours": max_hours}
    found, path, _ = tune(experiment, grid, wanted, execution, view(), metric, again="the same command", **how)
    if found is None:
        return 1
    if as_json:
        click.echo(json.dumps({"file": str(path), **found.tree()}, indent=1, allow_nan=False))
    else:
        say(_in_words(found, str(path)))
    return 0


def _in_words(tuning: Tuning, path: str) -> str:
    lines = [
        f"{path}: of {len(next(iter(tuning.rows.values())).trials)} trials each, by {tuning.metric} on held-out images"
    ]
    for name, row in tuning.rows.items():
        best = max((trial for trial in row.trials if trial.set == row.set), key=lambda trial: trial.mean is not None)
        edge = f"; {', '.join(row.edges)} at the edge of the values tried" if row.edges else ""
        diverged = sum(trial.mean is None for trial in row.trials)
        also = f"; {diverged} diverged" if diverged else ""
        said = ", ".join(f"{key}={value}" for key, value in row.set.items())
        lines.append(f"  {visible(name)}: {said} ({best.mean:.2f}){edge}{also}")
    return "\n".join(lines)
