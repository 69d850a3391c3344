"""Token mixers, norms and activations of one's own, outside this package. Reading what there is loads no torch.

`parts.yaml` in the folder one stands in, or the file that $ABLATE_PARTS names, says where their classes are:

    token_mixers:
      roll: {class: my_mixers.py:Roll, about: every channel moved by one token}

A component may also say `reads`, `window`, `mixes` and `fixed_resolution`, as the tables in components.py do, and
`uncounted`: operators that multiply nothing. What nobody else counts is counted by `macs`, a function of the same file,
or else the multiply-adds of the model are a lower bound (cost/counting.py). Every process reads the file for itself, so
workers know what the command knows.

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
from typing import Any

from metaformer_ablate.errors import ModelRefused, RequestError, nearest, shown
from metaformer_ablate.models.class_file import described, files_of
from metaformer_ablate.models.class_source import find_source
from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS, Component, own_name, readable
from metaformer_ablate.settings.yaml_reader import YamlFile, kind
from metaformer_ablate.system.files import read_regular

TABLES = {"token_mixers": MIXERS, "norms": NORMS, "activations": ACTIVATIONS}


_FIELDS: dict[str, tuple[type, str]] = {
    "class": (str, "file.py:Class"),
    "about": (str, "a line of text"),
    "reads": (list, "a list of names"),
    "window": (str, "a name of reads"),
    "mixes": (bool, "true or false"),
    "fixed_resolution": (bool, "true or false"),
    "macs": (str, "the name of a function in the file of the class"),
    "uncounted": (list, "a list of names such as aten::roll"),
}


# Operators that are products, or made of them: none of these costs nothing.
MULTIPLIES = re.compile(
    r"aten::(_?fft|linalg_|_?conv|\w*(mm|matmul|attention)$|(linear|bilinear|einsum|v?dot|mv|outer)$)"
)


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
    if key == "macs":
        fits = fits and value.isidentifier()
    if key == "window":
        fits = value in fields.get("reads", ())
    if not fits:
        raise RequestError(f"{at} is {shown(value)} ({kind(value)}); allowed: {allowed}")
    for word in value if key == "uncounted" else ():
        if MULTIPLIES.match(word):
            raise RequestError(
                f"{at}: {word} multiplies; allowed: operators that only move or combine elements. Leave it out, and "
                "MACs are a lower bound; or count it with macs: FUNCTION"
            )
    for word in value if key == "reads" else ():
        if word not in _READS[section]:
            among = ", ".join(_READS[section]) or "nothing"
            raise RequestError(f"{at}: unknown field {word!r}{nearest(word, list(_READS[section]))}; allowed: {among}")


def cannot_be_built(error: BaseException, parts: dict[str, Component]) -> ModelRefused:
    """What to say where a model that holds one's own parts, by name, cannot be built."""
    said = f"the model with {short_names(parts)} cannot be built: {described(error, class_files(parts))}"
    if isinstance(error, TypeError):
        said += "; a token mixer is built as Mixer(site), a norm as Norm(dim, eps, bias), an activation as Activation()"
    return ModelRefused(said)


def short_names(parts: Iterable[str]) -> str:
    """What parts.yaml calls them."""
    return ", ".join(name.partition("@")[0] for name in parts)


def class_files(parts: dict[str, Component]) -> list[str]:
    """The files of their classes, and of what these import."""
    sources = [find_source(part.target.rpartition(":")[0], part.target) for part in parts.values()]
    return [file for source in sources for file in files_of(source)]
