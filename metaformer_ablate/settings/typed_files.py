"""JSON that others may have written, read with bounds: regular files of bounded size that hold what they have to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from metaformer_ablate.system.files import read_regular

LARGEST_JSON = 2**20  # bytes


DEEPEST_JSON = 32  # objects and lists within each other


class FileShape(BaseModel):
    """What a JSON file has to hold: nothing is converted, no number is infinite, other keys are let through."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


def read_json(path: str | Path, largest: int = LARGEST_JSON) -> Any:
    """The value in a JSON file. Raises OSError where it cannot be read, ValueError where it is no such JSON."""
    text = read_regular(path, largest).decode()
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count("[") + text.count("{") > DEEPEST_JSON and _is_deep(value):
        raise ValueError("it is nested too deeply")
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
    return value


def unfit(shape: type[BaseModel], value: Any) -> str | None:
    """What of a value does not fit a shape, in a few words; None where all does."""
    try:
        shape.model_validate(value)
    except ValidationError as error:
        return first_problem(error)
    return None


def first_problem(error: Exception) -> str:
    """Why a file was not taken: `git.dirty: input should be a valid boolean`, or what the system or the reader says."""
    if not isinstance(error, ValidationError):
        return str(getattr(error, "strerror", None) or error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}" if place else first["msg"]


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(DEEPEST_JSON):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
