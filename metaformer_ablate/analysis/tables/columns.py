"""The columns of a table, and numbers as they are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaformer_ablate.errors import RequestError, unknown

DIGITS = 2


Row = Mapping[str, Any]


@dataclass(frozen=True)
class LatexColumn:
    """What LaTeX aligns by itself of a column: a heading, and a row's number as text ("" where there is none)."""

    heading: str
    of: Callable[[Row, int], str]
    number: bool = True


@dataclass(frozen=True)
class Column:
    """A column for people: a heading and a row's cell, with so many decimals of a percent."""

    heading: str
    of: Callable[[Row, int], str]
    left: bool = False
    whole: bool = False  # never broken: an interval is read in one line
    parts: tuple[LatexColumn, ...] = ()  # in LaTeX; without them the column is one number

    def latex_parts(self) -> tuple[LatexColumn, ...]:
        return self.parts or (LatexColumn(self.heading, self.of, number=not self.left),)


def format_millions(params: int | None, frozen: int | None = None) -> str:
    if params is None:
        return "-"
    digits = 2 if params >= 1e6 else 3
    return f"{params / 1e6:.{digits}f}" + (f" + {frozen / 1e6:.{digits}f} frozen" if frozen else "")


def format_billions(macs: int | None) -> str:
    return "-" if macs is None else f"{macs / 1e9:.2f}" if macs >= 1e8 else f"{macs / 1e9:.4f}"


def format_mean(row: Row, digits: int = DIGITS) -> str:
    if row["mean"] is None:
        return row["status"]
    text = f"{row['mean']:.{digits}f}"
    if row["std"] is not None:
        text += f" ± {row['std']:.{digits}f}"
    if row["ci95"] is not None:
        text += f" {format_pair(row['ci95'], digits)}"
    return text if row["status"] == "ok" else f"{text} ({row['status']})"


def format_pair(interval: Sequence[float] | None, digits: int = DIGITS, sign: str = "") -> str:
    return "" if interval is None else f"[{interval[0]:{sign}.{digits}f}, {interval[1]:{sign}.{digits}f}]"


def format_interval(mean: float, interval: Sequence[float] | None, signed: bool = False, digits: int = DIGITS) -> str:
    sign = "+" if signed else ""
    return f"{mean:{sign}.{digits}f} {format_pair(interval, digits, sign)}".rstrip()


def format_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def format_label(row: Row) -> str:
    """The label; of a row that was given none its name and what it sets, for only that differs."""
    if row["label"] != row["name"] or not row.get("set"):
        return row["label"]
    sets = ", ".join(f"{path.rpartition('.')[2]} {_plain(value)}" for path, value in row["set"].items())
    return f"{row['name']}: {sets}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def format_count(row: Row) -> str:
    """Runs that count; of all there are where that is not the same."""
    total = len(row["runs"])
    return str(row["n"]) if row["n"] == total or not total else f"{row['n']}/{total}"


def _optional(value: float | None, style: str) -> str:
    return "" if value is None else f"{value:{style}}"


def _p(test: Mapping[str, Any] | None) -> str:
    return "" if not test or test["p"] is None else format_p(test["p"])


def _difference(row: Row, digits: int) -> str:
    delta = row["delta"]
    return "" if delta is None else format_interval(delta["mean"], delta["ci95"], signed=True, digits=digits)


COLUMNS = {
    "group": Column("Group", lambda row, digits: row["group"], left=True),
    "row": Column("Row", lambda row, digits: format_label(row), left=True),
    "name": Column("Name", lambda row, digits: row["name"], left=True),
    "params": Column("Params (M)", lambda row, digits: format_millions(row["params"], row["frozen_params"])),
    "macs": Column("MACs (G)", lambda row, digits: format_billions(row["macs"])),
    "top1": Column(
        "Top-1 (%)",
        format_mean,
        whole=True,
        parts=(
            LatexColumn("Top-1 (%)", lambda row, digits: _optional(row["mean"], f".{digits}f") or row["status"]),
            LatexColumn("SD", lambda row, digits: _optional(row["std"], f".{digits}f")),
        ),
    ),
    "bootstrap": Column(
        "Bootstrap (%)",
        lambda row, digits: format_pair((row["bootstrap"] or {}).get("ci95"), digits),
        whole=True,
        parts=(
            LatexColumn(
                "Bootstrap (%)",
                lambda row, digits: format_pair((row["bootstrap"] or {}).get("ci95"), digits),
                number=False,
            ),
        ),
    ),
    "n": Column("n", lambda row, digits: format_count(row)),
    "difference": Column(
        "Difference",
        _difference,
        whole=True,
        parts=(
            LatexColumn("Difference", lambda row, digits: _optional((row["delta"] or {}).get("mean"), f"+.{digits}f")),
            LatexColumn(
                "95% interval",
                lambda row, digits: format_pair((row["delta"] or {}).get("ci95"), digits, "+"),
                number=False,
            ),
        ),
    ),
    "p": Column("p", lambda row, digits: _p(row["delta"])),
    "images": Column("p (images)", lambda row, digits: _p(row["images"])),
    "paper": Column("Paper top-1", lambda row, digits: _optional(row["paper"].get("top1"), ".1f")),
    "status": Column("Status", lambda row, digits: row["status"], left=True),
}


_DEFAULT = ("group", "row", "params", "macs", "top1", "n", "difference", "p", "paper")


_SORT_KEYS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row["name"],
    "row": format_label,
    "group": lambda row: row["group"],
    "params": lambda row: row["params"],
    "macs": lambda row: row["macs"],
    "top1": lambda row: row["mean"],
    "n": lambda row: row["n"],
    "difference": lambda row: (row["delta"] or {}).get("mean"),
    "p": lambda row: (row["delta"] or {}).get("p"),
    "paper": lambda row: row["paper"].get("top1"),
}


def choose_columns(names: Sequence[str] | None, images: bool = False) -> tuple[str, ...]:
    """The columns asked for, checked; without names the usual ones, and that of the images where they were tested."""
    if names is None:
        at = _DEFAULT.index("p") + 1
        return (*_DEFAULT[:at], *(["images"] if images else []), *_DEFAULT[at:])
    for name in names:
        if name not in COLUMNS:
            raise RequestError(f"--columns: {unknown('column', name, COLUMNS)}")
        if names.count(name) > 1:
            raise RequestError(f"--columns: {name} is named twice")
    return tuple(names)


def sort_rows(table: dict[str, Any], by: str) -> dict[str, Any]:
    """The table with its rows ordered by a column, from the largest with `-` before its name; what is unknown last."""
    name = by.removeprefix("-")
    if name not in _SORT_KEYS:
        raise RequestError(f"--sort: {unknown('column', name, _SORT_KEYS)}, or one with - before it: largest first")
    key = _SORT_KEYS[name]
    known = [row for row in table["rows"] if key(row) is not None]
    rest = [row for row in table["rows"] if key(row) is None]
    return {**table, "rows": [*sorted(known, key=key, reverse=by.startswith("-")), *rest]}
