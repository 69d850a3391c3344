"""Layers of settings, dotted paths, and canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from metaformer_ablate.errors import RequestError, shown


def canonical(value: Any) -> str:
    """The canonical JSON: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(value).encode("ascii")).hexdigest()


@dataclass
class Layer:
    """Settings from one place. `values` has dotted paths; `strict` says that a setting nothing reads is an error."""

    values: dict[str, Any]
    where: Callable[[str], str]  # path -> what an error calls the place: "experiments/x.yaml:12"
    strict: bool = False
    about: str = ""  # "row 'pool5'": named in errors


def flatten(
    tree: Mapping[Any, Any], where: Callable[[str], str], leaves: Container[str] = (), prefix: str = ""
) -> dict[str, Any]:
    """{"model": {"stem": {"kernel": 3}}} -> {"model.stem.kernel": 3}. Keys may be dotted already, at any depth.

    A mapping at a path of `leaves` stays as it is. Raises RequestError for a key that is no string, for an empty
    mapping and for a path that is set twice.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise RequestError(f"{where(prefix)}: the key {shown(key)} is not a string")
        path = f"{prefix}.{key}" if prefix else key
        is_tree = isinstance(value, Mapping) and path not in leaves
        inner = flatten(value, where, leaves, path) if is_tree else {path: value}
        if isinstance(value, Mapping) and not inner:
            raise RequestError(f"{where(path)}: {path} is an empty mapping")
        if repeated := sorted(flat.keys() & inner.keys()):
            raise RequestError(f"{where(path)}: {repeated[0]} is set twice")
        flat.update(inner)
    return flat
