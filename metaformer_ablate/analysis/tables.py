"""The table of an experiment from its records: the JSON of the contract, and that as text, markdown or csv."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from metaformer_ablate.analysis.stats import holm, paired_difference, summarise
from metaformer_ablate.cost import remembered
from metaformer_ablate.data.files import DataFolder
from metaformer_ablate.experiment import Plan, row_notes
from metaformer_ablate.records import Store
from metaformer_ablate.sweep import RunState, as_dict, seeds_with_records, state_of

FORMATS = ("text", "markdown", "csv", "json")


def build_table(plan: Plan, store: Store, folder: DataFolder, seeds: Sequence[int] | None = None) -> dict[str, Any]:
    """The table as plain values, with the keys of the contract. Top-1 in percent.

    Means are over ok runs. `delta` pairs the seeds that the row and the baseline both have; it is null for the
    baseline and where a seed of either diverged, for what is left would be a choice of the fortunate ones.
    """
    found = tuple(seeds) if seeds is not None else seeds_with_records(plan, store)
    # Of what each row is trained on, which an override may have made another than the recipe's.
    fingerprints = {name: folder.fingerprint(name) for name in {spec.data.name for spec in plan.specs.values()}}
    runs: dict[str, list[RunState]] = {row: [] for row in plan.experiment.rows}
    for name, spec in plan.specs.items():
        runs[name] = [state_of(spec.with_seed(seed), store, fingerprints[spec.data.name]) for seed in found]
    base = plan.experiment.baseline
    differences = {row: None if row == base else _difference(states, runs[base]) for row, states in runs.items()}
    corrected = dict(zip(runs, holm([d.p if d else None for d in differences.values()]), strict=True))
    rows = []
    for name, states in runs.items():
        row = plan.experiment.rows[name]
        summary = summarise(_top1s(states))
        difference = differences[name]
        records = [state.record for state in states if state.record is not None]
        counts = next((r.data for r in records if r.data["params"] is not None), None)
        if counts is None:  # no record yet: what `show` has counted on this machine, if it has
            known = remembered(plan.specs[name]) if name in plan.specs else None
            counts = asdict(known) if known else {}
        rows.append(
            {
                "name": name,
                "label": row.label,
                "group": row.group,
                **{key: counts.get(key) for key in ("params", "frozen_params", "macs")},
                "n": summary.n,
                "mean": summary.mean,
                "std": summary.std,
                "ci95": _list(summary.ci95),
                "delta": None
                if difference is None
                else {
                    "mean": difference.mean,
                    "ci95": _list(difference.ci95),
                    "p": corrected[name],
                    "method": difference.method,
                },
                "paper": row.paper,
                "status": _row_status(states),
                "notes": row_notes(plan, name) + _run_notes(states),
                "runs": [{**as_dict(state), "top1": state.top1} for state in states],
            }
        )
    return {
        "experiment": plan.experiment.name,
        "recipe": plan.recipe.name,
        "metric": "top1",
        "rows": rows,
        "warnings": _warnings(rows, store),
    }


def _top1s(states: Sequence[RunState]) -> list[float]:
    return [state.top1 for state in states if state.top1 is not None]


def _difference(states: Sequence[RunState], baseline: Sequence[RunState]) -> Any:
    if any(state.status == "diverged" for state in (*states, *baseline)):
        return None
    here, there = ({s.seed: s.top1 for s in side if s.top1 is not None} for side in (states, baseline))
    common = [seed for seed in here if seed in there]
    return paired_difference([here[seed] for seed in common], [there[seed] for seed in common]) if common else None


def _row_status(states: Sequence[RunState]) -> str:
    statuses = {state.status for state in states}
    if statuses == {"ok"}:
        return "ok"
    if "ok" in statuses or {"diverged", "failed"} <= statuses:
        return "partial"
    for status in ("diverged", "failed"):
        if status in statuses:
            return status if statuses == {status} else "partial"
    return "missing"


def _run_notes(states: Sequence[RunState]) -> list[str]:
    notes = []
    for status in ("diverged", "failed", "stale"):
        if seeds := [state.seed for state in states if state.status == status]:
            notes.append(f"{status}: seed {', '.join(map(str, seeds))}")
    if seeds := [s.seed for s in states if s.status == "ok" and s.record and s.record.data.get("at_chance")]:
        notes.append(f"at chance: seed {', '.join(map(str, seeds))}")
    return notes


def _warnings(rows: Sequence[dict[str, Any]], store: Store) -> list[str]:
    warnings = list(store.problems.values())
    done = [row for row in rows if row["n"]]
    if done and min(row["n"] for row in done) == 1:
        warnings.append("one seed: a difference between rows cannot be told from chance; run more with --seeds 3")
    if len({row["n"] for row in done}) > 1:
        warnings.append("rows have different numbers of seeds; differences are over the seeds that both rows have")
    if any(state["status"] == "stale" for row in rows for state in row["runs"]):
        warnings.append("stale runs saw other data than today's; they are shown and not counted")
    return warnings


def _list(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else list(pair)


# ---------------------------------------------------------------------------------------------------------------------
# Rendering

_HEADINGS = ("Group", "Row", "Params (M)", "MACs (G)", "Top-1 (%)", "n", "Difference", "p", "Paper top-1")


def render(table: dict[str, Any], style: str, width: int | None = None) -> str:
    """A table built by `build_table` as text, markdown, csv or json, with its notes."""
    if style == "json":
        return json.dumps(table, indent=1, allow_nan=False) + "\n"
    if style == "csv":
        return _csv(table)
    lines, notes = _cells(table)
    if style == "markdown":
        text = [f"**{table['experiment']}** under `{table['recipe']}`", ""]
        text += ["| " + " | ".join(_HEADINGS) + " |", "|" + " --- |" * len(_HEADINGS)]
        text += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        if notes:
            text += [line for note in notes for line in ("", note)]  # a paragraph each
        return "\n".join(text) + "\n"
    return _text(table, lines, notes, width)


def text_width() -> int:
    """Columns for text: the terminal's, or enough for every table of the paper on a pipe or in a file.

    At least 110, whatever the terminal: rich leaves out the columns that find no room, such as the number of seeds.
    """
    return max(shutil.get_terminal_size().columns, 110) if sys.stdout.isatty() else 180


def _text(table: dict[str, Any], lines: list[list[str]], notes: list[str], width: int | None) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, title=f"{table['experiment']} under {table['recipe']}", title_justify="left")
    for heading in _HEADINGS:
        right = heading not in ("Group", "Row")
        whole = heading in ("Top-1 (%)", "Difference")  # an interval is read in one line
        drawn.add_column(heading, justify="right" if right else "left", overflow="fold", no_wrap=whole)
    before = None
    for i, line in enumerate(lines):
        group = line[0]
        shown = ["" if group == before else group, *line[1:]]
        drawn.add_row(*(Text(cell) for cell in shown), end_section=i + 1 < len(lines) and lines[i + 1][0] != group)
        before = group
    stream = io.StringIO()
    console = Console(file=stream, width=width or text_width(), color_system=None, highlight=False)
    console.print(drawn)
    for note in notes:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _cells(table: dict[str, Any]) -> tuple[list[list[str]], list[str]]:
    """The cells of each row as text, and the notes below the table. Rows are never ranked, and none is bold."""
    marks: dict[str, int] = {}
    lines = []
    for row in table["rows"]:
        numbers = [str(marks.setdefault(note, len(marks) + 1)) for note in row["notes"]]
        label = row["label"] + (f" [{','.join(numbers)}]" if numbers else "")
        delta = row["delta"]
        paper = row["paper"].get("top1")
        lines.append(
            [
                row["group"],
                label,
                format_millions(row["params"], row["frozen_params"]),
                format_billions(row["macs"]),
                format_mean(row),
                str(row["n"]),
                "" if delta is None else format_interval(delta["mean"], delta["ci95"], signed=True),
                "" if delta is None or delta["p"] is None else format_p(delta["p"]),
                "" if paper is None else f"{paper:.1f}",
            ]
        )
    notes = [f"[{number}] {note}" for note, number in marks.items()]
    if any(row["ci95"] or (row["delta"] and row["delta"]["ci95"]) for row in table["rows"]):
        notes.append("Top-1: mean ± standard deviation over seeds [95% t interval of the mean].")
        notes.append(
            "Difference to the baseline: mean over common seeds [95% paired t interval]; p by Holm over the rows."
        )
    notes += [f"Warning: {warning}" for warning in table["warnings"]]
    return lines, notes


def format_millions(params: int | None, frozen: int | None = None) -> str:
    if params is None:
        return "-"
    digits = 2 if params >= 1e6 else 3
    return f"{params / 1e6:.{digits}f}" + (f" + {frozen / 1e6:.{digits}f} frozen" if frozen else "")


def format_billions(macs: int | None) -> str:
    return "-" if macs is None else f"{macs / 1e9:.2f}" if macs >= 1e8 else f"{macs / 1e9:.4f}"


def format_mean(row: dict[str, Any]) -> str:
    if row["mean"] is None:
        return row["status"]
    text = f"{row['mean']:.2f}"
    if row["std"] is not None:
        text += f" ± {row['std']:.2f}"
    if row["ci95"] is not None:
        text += f" [{row['ci95'][0]:.2f}, {row['ci95'][1]:.2f}]"
    return text if row["status"] == "ok" else f"{text} ({row['status']})"


def format_interval(mean: float, interval: Sequence[float] | None, signed: bool = False) -> str:
    sign = "+" if signed else ""
    text = f"{mean:{sign}.2f}"
    return text if interval is None else f"{text} [{interval[0]:{sign}.2f}, {interval[1]:{sign}.2f}]"


def format_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _csv(table: dict[str, Any]) -> str:
    columns = ["experiment", "recipe", "name", "label", "group", "params", "frozen_params", "macs", "n", "mean", "std"]
    columns += ["ci95_lo", "ci95_hi", "delta_mean", "delta_ci95_lo", "delta_ci95_hi", "delta_p", "delta_method"]
    columns += ["paper_top1", "status", "notes", "run_ids"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in table["rows"]:
        delta = row["delta"] or {"mean": None, "ci95": None, "p": None, "method": None}
        low, high = row["ci95"] or (None, None)
        delta_low, delta_high = delta["ci95"] or (None, None)
        extra = {
            "experiment": table["experiment"],
            "recipe": table["recipe"],
            "ci95_lo": low,
            "ci95_hi": high,
            "delta_mean": delta["mean"],
            "delta_ci95_lo": delta_low,
            "delta_ci95_hi": delta_high,
            "delta_p": delta["p"],
            "delta_method": delta["method"],
            "paper_top1": row["paper"].get("top1"),
            "notes": "; ".join(row["notes"]),
            "run_ids": " ".join(run["run_id"] for run in row["runs"] if run["status"] == "ok"),
        }
        writer.writerow({**row, **extra})
    return stream.getvalue()
