"""Strict sections of settings: the types of their fields, and what a field may be, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from metaformer_ablate.errors import unknown


def name_in(what: str, table: Mapping[str, Any] | tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in table:
            raise ValueError(unknown(what, value, table))
        return value

    return AfterValidator(check)


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("allowed: an odd integer of at least 1")
    return value


def _float(value: Any) -> Any:
    # YAML writes 1 for 1.0, and -0.0 is 0.0; the canonical JSON must not depend on it.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    return float(value) + 0.0 if abs(value) < 1e300 else math.inf if value > 0 else -math.inf


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


T = TypeVar("T")


Float = Annotated[float, BeforeValidator(_float)]


Odd = Annotated[int, Field(ge=1, lt=2**31), AfterValidator(_odd)]


Positive = Annotated[int, Field(ge=1, lt=2**31)]


Probability = Annotated[Float, Field(ge=0, lt=1)]


Fraction = Annotated[Float, Field(ge=0, le=1)]


NotNegative = Annotated[Float, Field(ge=0)]


AboveZero = Annotated[Float, Field(gt=0)]


Stages = Annotated[tuple[T, ...], BeforeValidator(_tuple)]


Pair = Annotated[tuple[T, ...], BeforeValidator(_tuple), Field(min_length=2, max_length=2)]


class Strict(BaseModel):
    # A setting whose name is a word of Python's has it as its alias: `key_of`.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, serialize_by_alias=True)


def key_of(name: str, info: FieldInfo) -> str:
    """What a spec calls a field."""
    return info.alias or name


# The version that a setting came with, unless it says a later one.
FIRST_VERSION = "0.1.0"


def setting(default: Any, allowed: str, since: str = FIRST_VERSION) -> Any:
    """A field with its default and what it may be, in words: the end of every error message about it."""
    return Field(default=default, description=allowed, json_schema_extra={"since": since})


def later_setting(allowed: str, since: str = FIRST_VERSION, alias: str | None = None) -> Any:
    """A field that was added after there were records. Null means as before, and is left out of what the id is of."""
    return Field(
        default=None,
        exclude_if=lambda value: value is None,
        description=allowed,
        alias=alias,
        json_schema_extra={"since": since},
    )


def execution_setting(default: Any, allowed: str, since: str = FIRST_VERSION) -> Any:
    """A field that says how a run is carried out: it stays out of the id and of spec.yaml."""
    return Field(default=default, exclude=True, description=allowed, json_schema_extra={"since": since})


def since_version(info: FieldInfo) -> str:
    """The version that a field came with."""
    extra = info.json_schema_extra
    return str(extra.get("since", FIRST_VERSION)) if isinstance(extra, dict) else FIRST_VERSION
