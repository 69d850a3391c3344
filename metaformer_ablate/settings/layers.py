"""Layers of settings, canonical JSON, and settings as words of a command line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON: keys sorted, no spaces, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@dataclass
class Layer:
    """Settings from one place. `values` has dotted paths; `strict` says that a setting nothing reads is an error."""

    values: dict[str, Any]
    where: Callable[[str], str]  # path -> what an error calls the place: "experiments/x.yaml:12"
    strict: bool = False
    about: str = ""  # "row 'pool5'": named in errors
