"""What the commands share: recurring options, and words to names, overrides, seeds and the store."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import (
    complete_folders,
    complete_from,
    complete_metrics,
    complete_recipes,
)
from metaformer_ablate.cli.words import split_words
from metaformer_ablate.errors import RequestError, shown, visible
from metaformer_ablate.system.console import folded, out_width

if TYPE_CHECKING:
    from metaformer_ablate.api.experiment import Experiment
    from metaformer_ablate.records.store import Store

logger = logging.getLogger(__name__)


class _Number(click.ParamType):
    """A number as people write it: Python alone takes 1_0, digits of other scripts and what is not finite."""

    name = "number"

    def __init__(self, whole: bool = False):
        self.what = "an integer" if whole else "a number"
        self.kind: type[int] | type[float] = int if whole else float
        self.pattern = r"[-+]?[0-9]{1,18}" if whole else r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,2})?"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(self.pattern, value):
            raise RequestError(f"{param.opts[0]} is {shown(value)}; allowed: {self.what}")
        return self.kind(value)


NUMBER, INTEGER = _Number(), _Number(whole=True)


def _execution(command: Any) -> Any:
    """Gathers the options of `Execution` into one argument of a command."""
    given = (
        click.option(
            "--launcher",
            default="local",
            metavar="NAME",
            shell_complete=complete_from("local", "ray", "slurm"),
            help="local, ray or slurm (default: local).",
        ),
        click.option("--workers", envvar="ABLATE_WORKERS", metavar="N", help=_WORKERS),
        click.option("--slurm", multiple=True, metavar="KEY=VALUE", help="An option of sbatch, for --launcher slurm."),
        _CHECKPOINTS["keep-checkpoints"],
        _CHECKPOINTS["checkpoint-seconds"],
        click.option(
            "--stall-minutes",
            default=30.0,
            type=NUMBER,
            metavar="M",
            help="Kill a worker without a step for so long (default: 30).",
        ),
    )

    @wraps(command)
    def gathered(**values: Any) -> Any:
        from metaformer_ablate.api.execution import Execution, read_workers

        workers = read_workers(values.pop("workers"), "--workers")
        names = [field.name for field in fields(Execution) if field.name != "workers"]
        execution = Execution(workers=workers, **{name: values.pop(name) for name in names})
        not_negative("--checkpoint-seconds", execution.checkpoint_seconds)
        not_negative("--stall-minutes", execution.stall_minutes)
        return command(execution=execution, **values)

    for option in reversed(given):
        gathered = option(gathered)
    return gathered


_CHECKPOINTS = {
    "keep-checkpoints": click.option(
        "--keep-checkpoints", is_flag=True, help="Leave each run's last.ckpt beside its record."
    ),
    "checkpoint-seconds": click.option(
        "--checkpoint-seconds", default=15.0, type=NUMBER, metavar="S", help="Time between checkpoints (default: 15)."
    ),
}


_WANDB = "Log to Weights & Biases (default project: $WANDB_PROJECT, else metaformer_ablate)."


_CLASS = "Where the class of a run's model is, if no experiment here names it (model.class)."


_WORKERS = "Runs at once, each in a process; N on one GPU share it; 0: in this one (default: by cores, or one per GPU)."


def _seeds(default: str) -> Callable[[Any], Any]:
    return click.option("--seeds", metavar="N|LIST", help=f"3 means seeds 0,1,2; or a list: 0,2,5{default}.")


def options(*names: str) -> Callable[[Any], Any]:
    """The options that recur, by name, in the order given."""
    known: dict[str, Callable[[Any], Any]] = {
        "recipe": click.option(
            "--recipe",
            metavar="NAME",
            shell_complete=complete_recipes,
            help="Where it is measured (default: digits; `ablate list recipes`).",
        ),
        "seeds": _seeds(" (default: seed 0)"),
        "seeds with records": _seeds(" (default: all with records)"),
        "planned seeds": _seeds("; to be given"),
        "results": click.option(
            "--results",
            metavar="DIR",
            shell_complete=complete_folders,
            help="Folder of records (default: $ABLATE_RESULTS, else results).",
        ),
        "metric": click.option(
            "--metric",
            metavar="NAME",
            shell_complete=complete_metrics,
            help="Another number of the task than the one that it reports, such as top5, mask_ap or pixel_accuracy.",
        ),
        "data": click.option(
            "--data",
            metavar="DIR",
            shell_complete=complete_folders,
            help="Folder of data sets (default: $ABLATE_DATA, else a cache).",
        ),
        "device": click.option(
            "--device",
            default="auto",
            metavar="NAME",
            shell_complete=complete_from("auto", "cpu", "cuda", "cuda:0"),
            help="auto (default), cpu, cuda or cuda:N.",
        ),
        "class": click.option("--class", "own_class", multiple=True, metavar="FILE.py:CLASS", help=_CLASS),
        "execution": _execution,
        **_CHECKPOINTS,
        "wandb": click.option("--wandb", is_flag=False, flag_value="", metavar="[PROJECT]", help=_WANDB),
        "tuned": click.option(
            "--tuned", is_flag=True, help="Each row at its own best value, as `ablate tune` chose it."
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="Machine-readable output on standard output."),
    }

    def decorate(command: Any) -> Any:
        for name in reversed(names):
            command = known[name](command)
        return command

    return decorate


def examples(*commands: str) -> str:
    """The end of a command's help: what people may type. A test parses each."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


notes_option = click.option("--notes", is_flag=True, help="Whole notes; a terminal shows their first sentences.")


def not_negative(option: str, value: float) -> None:
    if not value >= 0:
        raise RequestError(f"{option} is {value:g}; allowed: a number of at least 0")


def names_and_project(words: Sequence[str], wandb: str | None) -> tuple[list[str], str | None]:
    """The words of a command and the project of its `--wandb`: "" for the default one, None without the option.

    The word after `--wandb` is its project, unless it is an override or the name of an experiment: then it is easily
    meant to be one.
    """
    if not wandb:
        return list(words), wandb
    from metaformer_ablate.spec.experiment import find_all

    if "=" in wandb or wandb.endswith((".yaml", ".yml")) or wandb in find_all("experiment"):
        return [wandb, *words], ""
    if found := sorted(set(wandb) & set("/\\#?%:")):
        raise RequestError(f"--wandb is {wandb!r}, which holds {found[0]!r}; allowed: the name of a W&B project")
    return list(words), wandb


def one_name(words: Sequence[str], what: str) -> tuple[str, list[str]]:
    names, overrides = split_words(words)
    if len(names) != 1:
        found = f"found {len(names)}: {' '.join(names)}" if names else "found none"
        raise RequestError(f"give one {what}, then overrides as key.path=value; {found}")
    return names[0], overrides


def store_of(option: str | None) -> Store:
    """The store that --results or the environment names. Raises RequestError where it is no folder."""
    from metaformer_ablate.records.store import Store

    return Store.choose(option)


def experiment_of(
    name: str, recipe: str | None, overrides: Sequence[str], results: str | None, data: str | None, tuned: bool = False
) -> Experiment:
    """The experiment that a command names, under its recipe and overrides, over its folders; with `--tuned` each row
    at its own best value."""
    from metaformer_ablate.api.experiment import Experiment
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.spec.plan import plan

    found = Experiment(plan(name, recipe or "digits", overrides), store_of(results), DataFolder.choose(data))
    return found.tuned() if tuned else found


def stand_in(folder: str) -> None:
    """Has relative paths from here on be of this folder. Raises RequestError where it cannot be entered."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise RequestError(f"--folder {folder}: cannot be entered: {error.strerror}") from None


def folder_of(out: str) -> Path:
    """The folder to write to, made before anything is computed for it."""
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {out}: cannot be written: {error.strerror}") from None
    return Path(out)


def seeds_of(option: str | None) -> tuple[int, ...] | None:
    from metaformer_ablate.spec.plan import parse_seeds

    return None if option is None else parse_seeds(option)


def say(text: str) -> None:
    """Prints lines for people: none of them can steer a terminal, and one that is wider is folded."""
    for line in text.split("\n"):
        click.echo(folded(visible(line), out_width(), "  "))


def warn_problems(store: Store) -> None:

    for problem in store.problems.values():
        logger.warning(problem)
