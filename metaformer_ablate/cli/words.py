"""The words of a command line: names, overrides, and where the results are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names, then overrides. A word with a dot and no `=` is an override gone wrong, unless it is a path."""
    names: list[str] = []
    overrides: list[str] = []
    for word in words:
        is_name = "=" not in word and ("." not in word or "/" in word or word.endswith((".yaml", ".yml")))
        (names if is_name else overrides).append(word)
    return names, overrides


def results_path(option: str | None) -> Path:
    """The folder of records: that of --results, or of $ABLATE_RESULTS, or ./results."""
    return Path(option or os.environ.get("ABLATE_RESULTS") or "results")
