"""The words of a command line: names and overrides."""

from __future__ import annotations

from collections.abc import Sequence


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names, then overrides. A word with a dot and no `=` is an override gone wrong, unless it is a path."""
    names: list[str] = []
    overrides: list[str] = []
    for word in words:
        is_name = "=" not in word and ("." not in word or "/" in word or word.endswith((".yaml", ".yml")))
        (names if is_name else overrides).append(word)
    return names, overrides
