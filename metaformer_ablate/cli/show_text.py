"""What `ablate show` prints: a table of the rows, and below it what each sets and what is to know of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError, unknown

if TYPE_CHECKING:
    from metaformer_ablate.analysis.tables.columns import Column
    from metaformer_ablate.analysis.tables.sheet import Sheet
    from metaformer_ablate.spec.plan import Plan
    from metaformer_ablate.tasks.base import Metric

COLUMNS = ("row", "label", "group", "sets", "params", "macs", "pooling", "paper", "runs")

_USUAL = ("row", "label", "params", "macs", "pooling", "paper", "runs")

# In a narrow terminal these go, the first ones first.
_LEAST_TELLING = ("pooling", "macs", "params", "paper")


def choose_columns(words: str) -> tuple[str, ...]:
    """The columns of a list `row,params,macs`. Raises RequestError for one that there is not, or that stands twice."""
    names = tuple(word.strip() for word in words.split(","))
    for name in names:
        if name not in COLUMNS:
            raise RequestError(f"--columns: {unknown('column', name, COLUMNS)}")
        if names.count(name) > 1:
            raise RequestError(f"--columns: {name} is named twice")
    return names


def show_text(
    chosen: Plan, tree: Mapping[str, Any], estimate: str, names: Sequence[str] | None = None, whole: bool = True
) -> str:
    """The JSON of `ablate show` as text: with the columns named, or with as many of the usual ones as find room.

    Without `whole`, of each note only the first sentence and some of its rows.
    """
    from metaformer_ablate.analysis.tables.text import render_text, text_width
    from metaformer_ablate.tasks.registry import DEFAULT, get_task, task_of

    spec = next(iter(chosen.specs.values()), None)  # no row may be applicable
    task = get_task(chosen.recipe.layer.values.get("task.name", DEFAULT)) if spec is None else task_of(spec.to_dict())
    metric = task.reported
    known = _columns(tree["baseline"], metric)
    pools = any(row["pooling_additions"] for row in tree["rows"])
    shown = list(names) if names else [name for name in _USUAL if name != "pooling" or pools]
    notes = [*_note_lines(tree["rows"], whole), *map(_together, tree.get("interactions", []))]
    notes += [_field_text(tree["embedding_field"])] if tree["embedding_field"] is not None else []
    notes.append("* baseline")
    notes.append(f"To run: {tree['to_run']}, {estimate}." if tree["to_run"] else "To run: nothing is left.")

    narrow = tuple((name, None) for name in _LEAST_TELLING) if names is None else ()
    columns = {name: known[name] for name in shown}
    sheet = _sheet(chosen, tree, columns, notes, narrow)
    return render_text(sheet if whole else sheet.with_short_notes("show"), False, text_width())


def _sheet(
    chosen: Plan,
    tree: Mapping[str, Any],
    columns: Mapping[str, Column],
    notes: Sequence[str],
    narrow: Sequence[tuple[str, Column | None]],
) -> Sheet:
    from metaformer_ablate.analysis.tables.sheet import Sheet

    return Sheet(
        title=f"{chosen.experiment.title} ({tree['experiment']}) under {chosen.recipe.title} ({tree['recipe']})",
        rows=tree["rows"],
        columns=columns,
        digits=0,
        marks=[()] * len(tree["rows"]),
        footnotes=(),
        explanations=notes,
        narrow=narrow,
    )


def _columns(baseline: str, metric: Metric) -> dict[str, Column]:
    from metaformer_ablate.analysis.tables.columns import Column, format_billions, format_millions
    from metaformer_ablate.sweep.progress import name_in_text

    def name(row: Mapping[str, Any], digits: int) -> str:
        return row["name"] + (" *" if row["name"] == baseline else "")

    def pooling(row: Mapping[str, Any], digits: int) -> str:
        additions, moved = row["pooling_additions"], row["pooling_bytes"]
        return f"{additions / 1e6:.2f}, {moved / 1e6:.2f}" if additions else "-"

    def printed(row: Mapping[str, Any], digits: int) -> str:
        keys = ("params_m", "macs_g", metric.name)
        return ", ".join(str(row["paper"].get(key, "-")) for key in keys) if row["paper"] else "-"

    return {
        "row": Column("Row", name, left=True, whole=True),
        "label": Column("Label", lambda row, digits: row["label"], left=True),
        "group": Column("Group", lambda row, digits: row["group"], left=True),
        "sets": Column("Sets", lambda row, digits: _sets(row), left=True),
        "params": Column("Params (M)", lambda row, digits: format_millions(row["params"], row["frozen_params"])),
        "macs": Column("MACs (G)", lambda row, digits: format_billions(row["macs"], row["uncounted"])),
        "pooling": Column("Pooling: additions (M), MB", pooling),
        "paper": Column(f"Paper: params, MACs, {name_in_text(metric)}", printed, left=True, whole=True),
        "runs": Column("Runs", lambda row, digits: _counts(row["runs"]) or "not applicable", left=True),
    }


def _counts(runs: Sequence[Mapping[str, Any]]) -> str:
    """`3 ok, 2 missing`; "" without runs."""
    return ", ".join(f"{number} {status}" for status, number in Counter(run["status"] for run in runs).items())


def _sets(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}={json.dumps(value)}" for path, value in row["set"].items())


def _field_text(field: Mapping[str, float]) -> str:
    text = (
        f"Without mixing, a token of the last stage sees {field['pixels']} of {field['image_size']} pixels per side "
        f"(share {field['share']:.2f}; 0.28 in the paper's net)."
    )
    return text + (" That is more than half: token mixers have little left to add." if field["share"] > 0.5 else "")


def _together(interaction: Mapping[str, Any]) -> str:
    runs = _counts(interaction["runs"]) or interaction["notes"][0]
    return f"interaction of {' and '.join(interaction['rows'])}: {runs}"


def _note_lines(rows: Sequence[Mapping[str, Any]], whole: bool) -> list[str]:
    """What each row sets, then what is to know of rows: each note once, with the rows that it is of.

    Where not `whole`, only some of many rows are named.
    """
    of: dict[str, list[str]] = {}
    for row in rows:
        paper = row["paper"].get("note")
        for note in (*row["notes"], *([f"paper: {paper}"] if paper else [])):
            of.setdefault(note, []).append(row["name"])
    lines = [f"{row['name']}: sets {_sets(row)}" for row in rows if row["set"]]
    return lines + [f"{_named(names, len(rows), whole)}: {note}" for note, names in of.items()]


def _named(names: Sequence[str], rows: int, whole: bool) -> str:
    if 1 < len(names) == rows:
        return "every row"
    return ", ".join(names) if whole or len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more rows"
