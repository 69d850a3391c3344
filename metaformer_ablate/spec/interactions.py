"""`interactions` of an experiment: pairs of rows whose changes are also made together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from metaformer_ablate.errors import RequestError, shown, unknown
from metaformer_ablate.settings.yaml_reader import YamlFile


def read_pairs(file: YamlFile, value: Any, rows: Iterable[str], baseline: str) -> tuple[tuple[str, str], ...]:
    """The pairs of row names. Raises RequestError unless it is a list of pairs of different rows, each pair once."""
    where, names = file.where("interactions"), list(rows)
    pairs: list[tuple[str, str]] = []
    seen: set[frozenset[str]] = set()
    for entry in _listed(where, value):
        if not isinstance(entry, list) or len(entry) != 2:
            raise RequestError(f"{where}: interactions: {shown(entry)}; allowed: a pair of row names, as in [a, b]")
        for name in entry:
            _check_row(where, name, names, baseline)
        first, second = entry
        if first == second:
            raise RequestError(f"{where}: interactions: row {first!r} with itself; allowed: two different rows")
        if frozenset(entry) in seen:
            raise RequestError(f"{where}: interactions: {first} and {second} are named twice")
        seen.add(frozenset(entry))
        pairs.append((first, second))
    return tuple(pairs)


def _listed(where: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise RequestError(f"{where}: interactions is {shown(value)}; allowed: a list of pairs of row names")
    return value


def _check_row(where: str, name: Any, rows: list[str], baseline: str) -> None:
    if not isinstance(name, str) or name not in rows:
        raise RequestError(f"{where}: interactions: {unknown('row', str(name), rows)}")
    if name == baseline:
        raise RequestError(f"{where}: interactions: {name!r} is the baseline, which changes nothing")
