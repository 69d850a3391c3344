"""Errors that are shown to the user as one sentence, and how a name that is not known is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class RequestError(ValueError):
    """The request was wrong: one sentence that names what was found, where, and what is allowed (exit code 2)."""


class ModelRefused(RequestError):
    """A model with code of the user's own cannot be built or run. What else was asked for can still be done."""


class NotAvailable(Exception):
    """Images or weights that are not there, or are not those of the record: one sentence."""


def nearest(word: str, allowed: list[str]) -> str:
    """` (did you mean 'x'?)` when one of the allowed words is close, else an empty string."""
    from difflib import SequenceMatcher

    closeness = {name: SequenceMatcher(None, name, word).ratio() for name in allowed}
    best = max(allowed, key=closeness.__getitem__, default=None)  # of equally close ones the first
    return f" (did you mean {best!r}?)" if best is not None and closeness[best] >= 0.6 else ""


LONGEST_LINE = 600  # characters of a sentence


LONGEST_WORD = 160  # of them, without a space


def as_text(name: str) -> str:
    """The name of a file as UTF-8 can hold it: a byte that is none of it stands as an escape."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def visible(text: str) -> str:
    """Text that cannot steer a terminal or break a line: what is not printable stands as Python writes it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """A sentence on one line of bounded length; what is too long loses its middle."""
    words = (_clipped(word, LONGEST_WORD) for word in visible(" ".join(str(text).splitlines())).split(" "))
    return _clipped(" ".join(words), LONGEST_LINE)


def shown(value: Any) -> str:
    """A value as an error shows it: as Python writes it, in at most 80 characters."""
    try:
        return _clipped(repr(value), 80)
    except ValueError:  # of more digits than Python writes
        return "a number of thousands of digits"


def _clipped(text: str, longest: int) -> str:
    tail = longest // 3
    return text if len(text) <= longest else f"{text[: longest - tail - 3]}...{text[-tail:]}"


def unknown(what: str, found: str, allowed: Iterable[str]) -> str:
    """`unknown token mixer 'poling' (did you mean 'pooling'?); allowed: pooling, identity`."""
    names = list(allowed)
    return f"unknown {what} {shown(found)}{nearest(found, names)}; allowed: {', '.join(names)}"
