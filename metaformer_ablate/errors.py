"""Errors that are shown to the user as one sentence, and how a name that is not known is told."""

from __future__ import annotations

from collections.abc import Iterable


class RequestError(ValueError):
    """The request was wrong: one sentence that names what was found, where, and what is allowed (exit code 2)."""


def nearest(word: str, allowed: list[str]) -> str:
    """` (did you mean 'x'?)` when one of the allowed words is close, else an empty string."""
    from difflib import get_close_matches

    match = get_close_matches(word, allowed, n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def unknown(what: str, found: str, allowed: Iterable[str]) -> str:
    """`unknown token mixer 'poling' (did you mean 'pooling'?); allowed: pooling, identity`."""
    names = list(allowed)
    return f"unknown {what} {found!r}{nearest(found, names)}; allowed: {', '.join(names)}"
