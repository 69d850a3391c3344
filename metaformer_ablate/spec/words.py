"""Settings as words of a command line: `key.path=value`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec.known import all_leaves, flatten


def is_text(path: str) -> bool:
    """Whether a setting is one string or null."""
    return _is_of(path, str)


def is_integer(path: str) -> bool:
    """Whether a setting is an integer, null, or a list of these."""
    return _is_of(path, int, tuple)


def _is_of(path: str, kind: type, within: type | None = None) -> bool:
    info = all_leaves().get(path)
    return info is not None and _kinds(info.annotation, within) - {type(None)} == {kind}


def _kinds(annotation: Any, within: type | None) -> set[Any]:
    """The types of an annotation; of those that are `within`, their entries' types."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(inside[0], within)
    if origin in (Union, UnionType) or (origin is not None and origin is within):
        return {kind for one in inside if one is not Ellipsis for kind in _kinds(one, within)}
    return {origin or annotation}


def override_layer(words: Iterable[str]) -> Layer:
    """The layer of `key.path=value` words of a command line, each value read by `read_value`."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise RequestError(
                f"command line: {shown(word)} is not an override; write key.path=value, for example train.epochs=10"
            )
        value = read_value(key, text)
        new = flatten({key: value}, lambda path: "command line")
        if repeated := sorted(values.keys() & new.keys()):
            raise RequestError(f"command line: {repeated[0]} is set twice")
        values.update(new)
    return Layer(values, lambda path: "command line", strict=True)


def read_value(path: str, text: str) -> Any:
    """The value that the text of a word gives a setting: YAML, but of one that holds a string its text, be that `3.0`
    or `a: b.pth`. Nothing and `null` are None, and quotes around it are not part of it."""
    source = f"command line: {path}"
    if not is_text(path) or text in ("", "null"):
        return parse(text, source)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return parse(text, source)
    if any(0xD800 <= ord(character) < 0xE000 for character in text):  # what Python makes of bytes that are no UTF-8
        raise RequestError(f"{source} is {shown(text)}; allowed: UTF-8 text")
    return text


def as_words(values: Mapping[str, Any]) -> list[str]:
    """Settings by dotted path as `key.path=value` words, which `override_layer` reads as the same values."""
    return [f"{path}={_as_word(path, value)}" for path, value in values.items()]


def _as_word(path: str, value: Any) -> str:
    plain = isinstance(value, str) and (is_text(path) or value.isidentifier())
    try:
        return value if plain and read_value(path, value) == value else json.dumps(value)
    except RequestError:  # such as a quote that nothing closes
        return json.dumps(value)
