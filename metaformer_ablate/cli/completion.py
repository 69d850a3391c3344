"""What a shell offers when Tab is pressed: experiments, rows, recipes, runs, settings and their values. Loads no torch.

Click's own mechanism: `eval "$(_ABLATE_COMPLETE=bash_source ablate)"`, or zsh_source, or fish_source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, shell_complete

from metaformer_ablate.cli.words import split_words
from metaformer_ablate.errors import RequestError

VARIABLE = "_ABLATE_COMPLETE"  # the name that click gives it

Complete = Callable[[click.Context, click.Parameter, str], list[Any]]

# The kind of an item after which the word goes on: no space comes after it.
OPEN = "open"


class _Bash(BashComplete):
    """Bash takes `=` for the end of a word, and a space after every single match. Here `key.path=value` is one word."""

    source_template = BashComplete.source_template.replace(
        "        fi\n    done",
        f"        elif [[ $type == '{OPEN}' ]]; then\n"
        "            COMPREPLY+=($value)\n"
        "            compopt -o nospace\n"
        "        fi\n    done",
    )

    def get_completion_args(self) -> tuple[list[str], str]:
        args, incomplete = super().get_completion_args()
        joined: list[str] = []
        for word in [*args, incomplete]:
            if joined and word and (word == "=" or joined[-1].endswith("=")):
                joined[-1] += word
            else:
                joined.append(word)
        return joined[:-1], joined[-1]

    def format_completion(self, item: CompletionItem) -> str:
        _, equals, value = item.value.partition("=")
        return f"{item.type},{value if equals and value else item.value}"


def answer_shell(command: click.Command) -> int | None:
    """Answers a shell that asks for completions, and says with which exit code; None where none asks."""
    if (instruction := os.environ.get(VARIABLE)) is None:
        return None
    add_completion_class(_Bash)
    try:
        return shell_complete(command, {}, "ablate", VARIABLE, instruction)
    except (RequestError, click.ClickException, OSError):  # of what is typed so far: nothing is offered
        return 1


def completer(names: Callable[[click.Context, str], Iterable[Any]]) -> Complete:
    """A completer of click's from a function of the context and of the word so far; offers what begins with it."""

    @wraps(names)
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        try:
            found = list(names(ctx, incomplete))
        except (RequestError, OSError):  # such as a parts.yaml with an error: nothing is offered
            return []
        items = [item if isinstance(item, CompletionItem) else CompletionItem(item) for item in found]
        return [item for item in items if item.value.startswith(incomplete) or item.type in ("file", "dir")]

    return complete


def complete_from(*names: str) -> Complete:
    """A completer of fixed names."""
    return completer(lambda ctx, incomplete: names)


def _names_of(kind: str, incomplete: str) -> list[Any]:
    from metaformer_ablate.spec.experiment import find_all

    if "/" in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    return list(find_all(kind))


complete_recipes = completer(lambda ctx, incomplete: _names_of("recipe", incomplete))
complete_experiment = completer(lambda ctx, incomplete: _names_of("experiment", incomplete))
complete_folders = completer(lambda ctx, incomplete: [CompletionItem(incomplete, type="dir")])
complete_files = completer(lambda ctx, incomplete: [CompletionItem(incomplete, type="file")])


@completer
def complete_runs(ctx: click.Context, incomplete: str) -> Iterable[str]:
    from metaformer_ablate.records.store import Store

    return Store.choose(ctx.params.get("results")).ids()


@completer
def complete_metrics(ctx: click.Context, incomplete: str) -> Iterable[str]:
    from metaformer_ablate.tasks.registry import metrics_of_all_tasks

    return metrics_of_all_tasks()


@completer
def complete_rows(ctx: click.Context, incomplete: str) -> Iterable[str]:
    from metaformer_ablate.spec.experiment import load_experiment

    return load_experiment(ctx.params["experiment"]).rows


@completer
def complete_settings(ctx: click.Context, incomplete: str) -> Iterable[Any]:
    """Sections, then settings, then the values of one."""
    key, equals, _ = incomplete.partition("=")
    if equals:
        return [f"{key}={value}" for value in _values_of(key)]
    paths = [*setting_paths(), "model.name", "model.size", "train.epoch_factor"]
    whole = [f"{path}=" for path in paths] if "." in incomplete else {f"{path.partition('.')[0]}." for path in paths}
    return [CompletionItem(word, type=OPEN) for word in sorted(whole)]


@completer
def complete_experiments(ctx: click.Context, incomplete: str) -> Iterable[Any]:
    """Experiments, and settings once one is named or begun."""
    experiments = _names_of("experiment", incomplete)
    settings = complete_settings(ctx, ctx.command.params[0], incomplete) if incomplete else []
    return [*experiments, *settings]


@completer
def complete_one_experiment(ctx: click.Context, incomplete: str) -> Iterable[Any]:
    """An experiment, then settings."""
    return _after_names(ctx, incomplete, 1, "experiment")


@completer
def complete_model_or_experiment(ctx: click.Context, incomplete: str) -> Iterable[Any]:
    """A named model or an experiment, then settings."""
    from metaformer_ablate.models.presets import NAMED

    found = _after_names(ctx, incomplete, 1, "experiment")
    return found if _has_names(ctx, 1) else [*NAMED, *found]


@completer
def complete_compared(ctx: click.Context, incomplete: str) -> Iterable[Any]:
    """Recipes; from two of them on an experiment too, then settings."""
    recipes = [*_names_of("recipe", incomplete), "paper"]
    return [*recipes, *_after_names(ctx, incomplete, 3, "experiment")] if _has_names(ctx, 2) else recipes


def _has_names(ctx: click.Context, number: int) -> bool:
    return len(split_words(ctx.params.get("words") or ())[0]) >= number


def _after_names(ctx: click.Context, incomplete: str, number: int, kind: str) -> list[Any]:
    settings = complete_settings(ctx, ctx.command.params[0], incomplete)
    if _has_names(ctx, number):
        return settings
    return [*_names_of(kind, incomplete), *(settings if incomplete else [])]


def setting_paths() -> list[str]:
    from metaformer_ablate.spec.known import all_leaves

    return list(all_leaves())


def _values_of(path: str) -> list[str]:
    """The values that the description of a setting lists; those of components with the user's own."""
    from metaformer_ablate.models.presets import NAMED, SIZES
    from metaformer_ablate.models.registry import COMPONENTS
    from metaformer_ablate.spec.known import all_leaves

    COMPONENTS.read_own()
    tables: dict[str, Iterable[str]] = {
        "token_mixer": COMPONENTS.mixers,
        "norm": COMPONENTS.norms,
        "activation": COMPONENTS.activations,
    }
    tables |= {"name": NAMED, "size": SIZES}
    if path.startswith("model.") and (table := tables.get(path.rpartition(".")[2])) is not None:
        return [name.partition("@")[0] for name in table]
    info = all_leaves().get(path)
    return listed_values((info.description if info else None) or "")


def listed_values(allowed: str) -> list[str]:
    """`one of: a, b` and `a, b (what it is) or c` as [a, b, c]; nothing where the words are no list of values."""
    text = allowed.rpartition(" of: ")[2] if " of: " in allowed else allowed.partition(": ")[0]
    words = re.split(r", or |, | or ", re.sub(r" ?\([^)]*\)", "", text))
    return words if all(re.fullmatch(r"[\w.]+", word) for word in words) else []
