"""`ablate list`: what there is."""

from __future__ import annotations

import json
from typing import Any

import click

from metaformer_ablate.cli.options import options
from metaformer_ablate.errors import visible


@click.command("list")
@options("json")
def list_command(as_json: bool) -> None:
    """Experiments, recipes, mixers, norms, activations and named models."""
    from metaformer_ablate.models.presets import NAMED, SIZES
    from metaformer_ablate.models.registry import COMPONENTS
    from metaformer_ablate.spec.experiment import find_all, first_title

    COMPONENTS.read_own()
    files = {
        kind: {name: {"title": first_title(path), "path": str(path)} for name, path in find_all(kind).items()}
        for kind in ("experiment", "recipe")
    }
    parts = {"token mixers": COMPONENTS.mixers, "norms": COMPONENTS.norms, "activations": COMPONENTS.activations}
    sizes = {name: {"depths": list(size.depths), "dims": list(size.dims)} for name, size in SIZES.items()}
    if as_json:
        tree: dict[str, Any] = {"experiments": files["experiment"], "recipes": files["recipe"]}
        tree |= {
            title.replace(" ", "_"): {
                name.partition("@")[0]: {
                    "about": part.about,
                    "reads": list(part.reads),
                    **({"class": part.target, "digest": part.digest} if part.digest else {}),
                }
                for name, part in table.items()
            }
            for title, table in parts.items()
        }
        tree |= {"models": {name: dict(values) for name, values in NAMED.items()}, "sizes": sizes}
        click.echo(json.dumps(tree, indent=1))
        return
    for kind, found in files.items():
        _section(f"{kind}s", {name: f"{entry['title']}  ({entry['path']})" for name, entry in found.items()})
    for title, table in parts.items():
        _section(
            title,
            {
                name.partition("@")[0]: part.about + (f"  ({part.target})" if part.digest else "")
                for name, part in table.items()
            },
        )
    _section("sizes", {name: f"depths {size['depths']}, dims {size['dims']}" for name, size in sizes.items()})
    click.echo("named models\n  " + " ".join(NAMED))


def _section(title: str, lines: dict[str, str]) -> None:
    width = max((len(name) for name in lines), default=0)
    click.echo(title)
    for name, text in lines.items():
        click.echo(visible(f"  {name:<{width}}  {text}"))
    click.echo()
