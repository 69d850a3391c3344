"""A grid of settings: the values that each row of an experiment is tried with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import Any

from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.spec.words import override_layer

MOST_TRIALS = 1_000  # of a row


_FIXED = ("data.evaluate_on", "data.name")


def read_grid(words: Sequence[str]) -> dict[str, list[Any]]:
    """`train.lr=2e-3,4e-3` words as values by setting, in the order given.

    Raises RequestError for a word of another form, a setting or a value that is there twice, fewer than two values, and
    more than MOST_TRIALS together.
    """
    grid: dict[str, list[Any]] = {}
    trials = 1
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise RequestError(f"--over {shown(word)}; allowed: KEY=A,B,C, as train.lr=2e-3,4e-3,8e-3")
        if key in grid:
            raise RequestError(f"--over: {key} is given twice")
        # A comma within brackets is one of a list, as in model.depths=[1,1,2,1],[2,2,6,2].
        parts = re.split(r",(?![^\[{]*[\]}])", text)
        if key in _FIXED:
            raise RequestError(f"--over: {key} is the same of all trials, which are of one data set's training images")
        layers = [override_layer([f"{key}={part}"]) for part in parts]
        if any(key not in layer.values for layer in layers):
            raise RequestError(f"--over {shown(word)}: a mapping; allowed: one setting with a value that is none")
        values = [layer.values[key] for layer in layers]
        if len(values) < 2:
            raise RequestError(f"--over {shown(word)} has one value; allowed: two or more, parted by commas")
        if repeated := next((value for i, value in enumerate(values) if value in values[:i]), None):
            raise RequestError(f"--over {shown(word)}: {shown(repeated)} is there twice")
        grid[key] = values
        trials *= len(values)
    if not grid:
        raise RequestError("give --over KEY=A,B,C: a setting and the values that every row is tried with")
    if trials > MOST_TRIALS:
        raise RequestError(f"--over: {trials} trials of each row; allowed: at most {MOST_TRIALS}")
    return grid


def points(grid: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The trials: every combination of the values, by setting."""
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]


def edges(grid: dict[str, list[Any]], point: dict[str, Any]) -> list[str]:
    """The settings of a point whose value is the smallest or the largest of its numbers in the grid."""
    found = []
    for key, value in point.items():
        values = grid[key]
        numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values)
        if numbers and value in (min(values), max(values)):
            found.append(key)
    return found
