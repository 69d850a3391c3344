"""Token mixers, norms and activations of one's own, outside this package. Reading what there is loads no torch.

`parts.yaml` in the folder one stands in, or the file that $ABLATE_PARTS names, says where their classes are:

    token_mixers:
      roll: {class: my_mixers.py:Roll, about: every channel moved by one token}

A component may also say `reads`, `window`, `mixes` and `fixed_resolution`, as the tables in components.py do, and
`uncounted`: operators that need not be counted. Every process reads the file for itself, so workers know what the
command knows.

The resolved spec names such a part by its class too: `roll@3f2a91c04b7d`, with the digest of the file that holds it and
of what that imports from its own folder (class_source.py). So a changed class is another run, a record tells which
class it is of, and a sweep never trains half of its runs with what was edited since it began.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError, nearest, shown
from metaformer_ablate.models.class_file import described, files_of
from metaformer_ablate.models.class_source import find_source
from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS, Component, own_name, readable
from metaformer_ablate.settings.yaml_reader import YamlFile, kind
from metaformer_ablate.system.files import read_regular

if TYPE_CHECKING:
    from torch import nn


TABLES = {"token_mixers": MIXERS, "norms": NORMS, "activations": ACTIVATIONS}


_FIELDS: dict[str, tuple[type, str]] = {
    "class": (str, "file.py:Class"),
    "about": (str, "a line of text"),
    "reads": (list, "a list of names"),
    "window": (str, "a name of reads"),
    "mixes": (bool, "true or false"),
    "fixed_resolution": (bool, "true or false"),
    "uncounted": (list, "a list of names such as aten::cumsum"),
}


# What a component of each section may read: what the package's own read.
_READS = {section: readable(table) for section, table in TABLES.items()}


def own_parts_file() -> Path | None:
    """The file that says where one's own parts are; None where nothing names one."""
    named, here = os.environ.get("ABLATE_PARTS"), Path("parts.yaml")
    return Path(named) if named else here if here.is_file() else None


def own_components() -> dict[str, dict[str, Component]]:
    """{section: {name with digest: component}} of what the file says now.

    Raises RequestError for a file that says anything else than the above.
    """
    path = own_parts_file()
    found: dict[str, dict[str, Component]] = {section: {} for section in TABLES}
    if path is not None:
        try:
            text = read_regular(path)
        except OSError as error:
            raise RequestError(f"ABLATE_PARTS is {str(path)!r}, which cannot be read: {error.strerror}") from None
        for section, name, target, options in _declared(path, text):
            file, _, class_name = target.rpartition(":")
            digest = find_source(str(path.parent / file), f"{path}: {section}.{name}").digest(class_name)
            part = Component(f"{path.parent / file}:{class_name}", digest=digest, **options)
            found[section][own_name(name, digest)] = part
    return found


@lru_cache(maxsize=8)
def _declared(path: Path, text: bytes) -> list[tuple[str, str, Any, dict[str, Any]]]:
    """(section, name, class, other fields) of each component in a file, checked. `text` is the file's content."""
    file = YamlFile(path)
    parts: list[tuple[str, str, Any, dict[str, Any]]] = []
    for section, tree in file.data.items():
        if section not in TABLES:
            raise RequestError(
                f"{file.where(str(section))}: unknown key {str(section)!r}{nearest(str(section), list(TABLES))}; "
                f"allowed: {', '.join(TABLES)}"
            )
        if not isinstance(tree, dict):
            raise RequestError(
                f"{file.where(section)}: {section} must be a mapping of names to parts, not {kind(tree)}"
            )
        for name, fields in tree.items():
            where = f"{file.where(section, str(name))}: {section}.{name}"
            if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise RequestError(f"{where}: a name is of small letters, digits and _, and begins with a letter")
            if name in TABLES[section]:
                raise RequestError(f"{where}: the package has a part of this name; choose another")
            if not isinstance(fields, dict) or "class" not in fields:
                raise RequestError(f"{where}: must be a mapping with the key 'class': file.py:Class")
            for key in fields:
                _check_field(file, section, name, fields, key)
            rest = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
            parts.append((section, name, rest.pop("class"), {"about": "", **rest}))
    return parts


def _check_field(file: YamlFile, section: str, name: str, fields: dict[Any, Any], key: Any) -> None:
    at = f"{file.where(section, name, str(key))}: {section}.{name}.{key}"
    if key not in _FIELDS:
        raise RequestError(f"{at}: unknown key{nearest(str(key), list(_FIELDS))}; allowed: {', '.join(_FIELDS)}")
    value = fields[key]
    type_, allowed = _FIELDS[key]
    fits = isinstance(value, type_)
    if fits and isinstance(value, list):
        fits = all(isinstance(word, str) for word in value)
    if key == "class":
        fits = fits and re.fullmatch(r"[^:]+\.py:[A-Za-z_]\w*", value) is not None
    if key == "window":
        fits = value in fields.get("reads", ())
    if not fits:
        raise RequestError(f"{at} is {shown(value)} ({kind(value)}); allowed: {allowed}")
    for word in value if key == "reads" else ():
        if word not in _READS[section]:
            among = ", ".join(_READS[section]) or "nothing"
            raise RequestError(f"{at}: unknown field {word!r}{nearest(word, list(_READS[section]))}; allowed: {among}")


def cannot_be_built(error: BaseException, parts: dict[str, Component]) -> RequestError:
    """What to say where a model that holds one's own parts, by name, cannot be built."""
    said = f"the model with {_short(parts)} cannot be built: {described(error, _files(parts))}"
    if isinstance(error, TypeError):
        said += "; a token mixer is built as Mixer(site), a norm as Norm(dim, eps, bias), an activation as Activation()"
    return RequestError(said)


def _short(parts: Iterable[str]) -> str:
    return ", ".join(name.partition("@")[0] for name in parts)


def _files(parts: dict[str, Component]) -> list[str]:
    sources = [find_source(part.target.rpartition(":")[0], part.target) for part in parts.values()]
    return [file for source in sources for file in files_of(source)]


def _one_tensor(output: Any) -> Any:
    """[B, n]: the logits, or the maps of a backbone side by side."""
    import torch

    return output if isinstance(output, torch.Tensor) else torch.cat([level.flatten(1) for level in output], dim=1)


def check_own_parts(net: nn.Module, parts: dict[str, Component], image: tuple[int, int, int]) -> None:
    """Passes two random images [C, H, W] through a net that holds one's own parts, by name.

    Raises RequestError unless each part keeps the shape of its input, numbers stay finite, and in eval mode an image
    gives the same logits alone as beside another: else rows would be compared by what a batch holds.
    """
    import torch

    names = {part.load(): name.partition("@")[0] for name, part in parts.items()}

    def keep(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        name, here = names[type(module)], list(inputs[0].shape)
        if not isinstance(output, torch.Tensor):
            found = "nothing (is there a return?)" if output is None else f"a {type(output).__name__}"
            raise RequestError(f"{name}: maps {here} to {found}; allowed: a tensor of the same shape")
        if here != list(output.shape):
            raise RequestError(f"{name}: maps {here} to {list(output.shape)}; allowed: the same shape")

    hooks = [module.register_forward_hook(keep) for module in net.modules() if type(module) in names]
    try:
        alone_as_beside(net, image, f"the model with {_short(parts)}", _files(parts))
    finally:
        for hook in hooks:
            hook.remove()


def alone_as_beside(net: nn.Module, image: tuple[int, int, int], name: str, files: Iterable[str]) -> None:
    """Passes two random images [C, H, W] through a net of code in `files`.

    Raises RequestError, about `name`, unless it runs, numbers stay finite, and in eval mode an image gives the same
    logits alone as beside another.
    """
    import torch

    was_training = net.training
    net.eval()
    images = torch.rand(2, *image, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            both, alone = _one_tensor(net(images)), _one_tensor(net(images[:1]))
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        raise RequestError(f"{name} cannot run: {described(error, files)}") from None
    finally:
        net.train(was_training)
    if not torch.isfinite(both).all():
        raise RequestError(f"{name} gives logits that are not finite")
    if not torch.allclose(both[:1], alone, rtol=1e-3, atol=1e-4 * float(both.abs().max())):
        raise RequestError(f"{name} gives an image other logits alone than beside another, in eval mode")
