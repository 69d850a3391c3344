"""`ablate list`: what there is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from metaformer_ablate.cli.completion import OPEN, completer, setting_paths
from metaformer_ablate.cli.options import examples, options
from metaformer_ablate.errors import RequestError, unknown, visible

if TYPE_CHECKING:
    from metaformer_ablate.models.components import Component
    from metaformer_ablate.spec.reference import SettingLine

_EXAMPLES = examples("ablate list", "ablate list mixers", "ablate list settings train.", "ablate list recipes --json")

# What `ablate list PART` takes, and the key of the JSON; without PART all but the settings are listed.
PARTS = {
    "experiments": "experiments",
    "recipes": "recipes",
    "mixers": "token_mixers",
    "norms": "norms",
    "activations": "activations",
    "sizes": "sizes",
    "models": "models",
    "settings": "settings",
}


@completer
def complete_parts(ctx: click.Context, incomplete: str) -> Iterable[Any]:
    """A part of `ablate list`, then the names in it, or the settings by their sections."""
    part = ctx.params.get("part")
    if not part:
        return PARTS
    if part != "settings":
        return names_of_part(part)
    paths = setting_paths()
    sections = {f"{path.partition('.')[0]}." for path in paths}
    return paths if "." in incomplete else [CompletionItem(section, type=OPEN) for section in sorted(sections)]


@click.command("list", epilog=_EXAMPLES)
@click.argument("part", default="", metavar="[PART]", shell_complete=complete_parts)
@click.argument("prefix", default="", metavar="[PREFIX]", shell_complete=complete_parts)
@options("json")
def list_command(part: str, prefix: str, as_json: bool) -> None:
    """Experiments, recipes, mixers, models and settings.

    PART is experiments, recipes, mixers, norms, activations, sizes, models or settings; without it, all but the
    settings are listed. PREFIX keeps the names that begin with it.
    """
    if part and part not in PARTS:
        raise RequestError(unknown("part", part, PARTS))
    if part == "settings":
        _list_settings(prefix, as_json)
        return
    tree = _tree([part] if part else [name for name in PARTS if name != "settings"])
    tree = {
        key: {name: about for name, about in found.items() if name.startswith(prefix)} for key, found in tree.items()
    }
    if prefix and not any(tree.values()):
        raise RequestError(f"no name of {part} begins with {prefix!r}; `ablate list {part}` lists them")
    click.echo(json.dumps(tree, indent=1) if as_json else "\n\n".join(_section(key, tree[key]) for key in tree))


def _tree(parts: list[str]) -> dict[str, dict[str, Any]]:
    """What each part holds, by the keys of the JSON."""
    from metaformer_ablate.models.presets import NAMED, SIZES
    from metaformer_ablate.models.registry import COMPONENTS
    from metaformer_ablate.spec.experiment import find_all, first_title

    def files(kind: str) -> dict[str, Any]:
        return {name: {"title": first_title(path), "path": str(path)} for name, path in find_all(kind).items()}

    COMPONENTS.read_own()
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "experiments": lambda: files("experiment"),
        "recipes": lambda: files("recipe"),
        "mixers": lambda: _components(COMPONENTS.mixers),
        "norms": lambda: _components(COMPONENTS.norms),
        "activations": lambda: _components(COMPONENTS.activations),
        "sizes": lambda: {name: {"depths": list(size.depths), "dims": list(size.dims)} for name, size in SIZES.items()},
        "models": lambda: {name: dict(values) for name, values in NAMED.items()},
    }
    return {PARTS[part]: makers[part]() for part in parts}


def names_of_part(part: str) -> list[str]:
    """The names in a part; none where there is no such part, and none of the settings."""
    return [] if part == "settings" or part not in PARTS else list(_tree([part])[PARTS[part]])


def _components(table: Mapping[str, Component]) -> dict[str, Any]:
    return {
        name.partition("@")[0]: {
            "about": part.about,
            "reads": list(part.reads),
            **({"class": part.target, "digest": part.digest} if part.digest else {}),
        }
        for name, part in table.items()
    }


def _section(key: str, found: Mapping[str, Any]) -> str:
    """A part as text: its name, then a line for each of its names."""
    title = key.replace("_", " ")
    if key == "models":
        return "\n".join(["named models", *_folded(" ".join(found), "  ")])
    lines = {
        "experiments": lambda entry: f"{entry['title']}  ({entry['path']})",
        "sizes": lambda entry: f"depths {entry['depths']}, dims {entry['dims']}",
    }
    lines["recipes"] = lines["experiments"]
    told = lines.get(key, lambda entry: entry["about"] + (f"  ({entry['class']})" if "class" in entry else ""))
    width = max((len(name) for name in found), default=0)
    text = [title]
    for name, entry in found.items():
        text += _folded(visible(f"  {name:<{width}}  {told(entry)}"), " " * (width + 4), first="")
    return "\n".join(text)


def _folded(text: str, indent: str, first: str | None = None) -> list[str]:
    """A text as lines of the terminal's width; as one line where nobody looks at it."""
    import shutil
    import sys
    from textwrap import wrap

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 100_000
    lead = indent if first is None else first
    return wrap(
        text,
        max(width, 40),
        initial_indent=lead,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [lead]


def _list_settings(prefix: str, as_json: bool) -> None:
    from metaformer_ablate.errors import nearest
    from metaformer_ablate.spec.reference import settings_reference

    found = settings_reference(prefix)
    if not found:
        names = [line.path for line in settings_reference()]
        raise RequestError(
            f"no setting begins with {prefix!r}{nearest(prefix, names)}; `ablate list settings` lists them all"
        )
    if as_json:
        click.echo(json.dumps({"settings": [line.to_json() for line in found]}, indent=1))
        return
    click.echo("\n".join(text for line in found for text in _setting_text(line)))


def _setting_text(line: SettingLine) -> list[str]:
    head = f"{line.path} of {line.task}" if line.task else line.path
    facts = f"read {line.readers}; {'' if line.in_id else 'not part of a run id; '}since {line.since}"
    default = "no default: the recipe sets it" if line.required else f"default {shown_default(line)}"
    return [head, *_folded(f"{line.allowed}", "    "), *_folded(f"{default}; {facts}", "    ")]


def shown_default(line: SettingLine) -> str:
    return line.default if isinstance(line.default, str) else json.dumps(line.default)
