"""Settings as words of a command line: `key.path=value`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.models.spec import STAGED
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec.merge import LEAVES, flatten


def _types_of(annotation: Any) -> set[Any]:
    inside = [kind for part in get_args(annotation) if part is not Ellipsis for kind in _types_of(part)]
    return set(inside) if inside else {annotation} if isinstance(annotation, type) else set()


# Settings of one string or null, and those of integers, of null and of lists of these.
TEXTS = {path for path, info in LEAVES.items() if _types_of(info.annotation) - {type(None)} == {str}}
TEXTS = (TEXTS | {"model.name", "model.size"}) - {f"model.{name}" for name in STAGED}
INTEGERS = {path for path, info in LEAVES.items() if _types_of(info.annotation) - {type(None)} == {int}}


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
    if path not in TEXTS or text in ("", "null"):
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
    plain = isinstance(value, str) and (path in TEXTS or value.isidentifier())
    try:
        return value if plain and read_value(path, value) == value else json.dumps(value)
    except RequestError:  # such as a quote that nothing closes
        return json.dumps(value)
