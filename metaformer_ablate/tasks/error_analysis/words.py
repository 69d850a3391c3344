"""Pieces of an error analysis in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metaformer_ablate.tasks.error_analysis.runs import called

SHOWN = 20  # classes


def opening(result: Mapping[str, Any], amounts: str) -> str:
    """Which run it is, on how much of which data."""
    return f"{called(result)} on {result['dataset']} ({result['split']}, {amounts})"


def percent(value: float | None) -> str:
    """` 12.34%`, or a dash in as much room."""
    return "      -" if value is None else f"{value:6.2f}%"


def percents(line: Mapping[str, Any], keys: Sequence[str]) -> str:
    return "  ".join(percent(line[key]) for key in keys)


def confusions(pairs: Iterable[Mapping[str, Any]], count: str = "count", unit: str = "") -> list[str]:
    """A line for each pair of classes of which one is taken for the other."""
    return [
        f"  {pair['label_name']} misclassified as {pair['predicted_name']}: {pair[count]:,} of {pair['of']:,}{unit} "
        f"({pair['share']:.1f}%)"
        for pair in pairs
    ]


def against(found: Mapping[str, Any], value: str) -> list[str]:
    """The other run with its metric, and in what the two differ."""
    second = found["second"]
    differ = "; ".join(f"{path} {_short(a)} / {_short(b)}" for path, (a, b) in found["differ_in"].items())
    return [
        f"Against {called(second)}: {value}",
        f"  they differ in {differ}",
    ]


def _short(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return str(value[0]) if len(set(map(str, value))) == 1 else "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None else str(value)
