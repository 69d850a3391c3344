"""Rows at their own best value beside the same rows at one value: how the differences change, and what trials may yet
find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from metaformer_ablate.analysis.tables.columns import Column, format_difference, format_mean, format_p, format_pair
from metaformer_ablate.analysis.tables.sheet import Sheet
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Delta, Table, TableRow, name_of_test, plain
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.records.tuning import Tuning, path_of
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.statistics.budget import expected_best
from metaformer_ablate.statistics.stats import corrected_over, holm, paired_difference
from metaformer_ablate.tasks.base import Metric

BUDGET = "mean of the best over all subsets of the trials (Tang et al. 2020)"


@dataclass(frozen=True)
class TunedLine:
    """A row at one value and at its own best: what was chosen, both results, and the change of its difference to the
    baseline. `expected_best` is of 1, 2, ... trials, on held-out images; None where one diverged."""

    name: str
    label: str
    group: str
    chosen: Mapping[str, Any]
    edges: tuple[str, ...]
    same: TableRow
    tuned: TableRow
    change: Delta | None
    expected_best: tuple[float, ...] | None

    @property
    def set(self) -> Mapping[str, Any]:
        return {}

    def to_json(self) -> dict[str, Any]:
        names = ("name", "label", "chosen", "edges", "change", "expected_best")
        sides = {
            side: {key: plain(getattr(row, key)) for key in ("n", "mean", "std", "ci95", "delta")}
            for side, row in (("same", self.same), ("tuned", self.tuned))
        }
        return {**{name: plain(getattr(self, name)) for name in names}, **sides}


@dataclass(frozen=True)
class TuningPart:
    """The part of a table that `--tuned` adds."""

    metric: Metric
    title: str
    file: str
    over: Mapping[str, Sequence[Any]]
    seeds: Sequence[int]
    trials: int
    rows: tuple[TunedLine, ...]
    text: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        names = ("file", "over", "seeds", "trials", "rows", "text")
        return {**{name: plain(getattr(self, name)) for name in names}, "method": BUDGET}


def build_tuned_table(
    plans: tuple[Plan, Plan],
    tuning: Tuning,
    store: Store,
    folder: DataFolder,
    seeds: Sequence[int] | None = None,
    **asked: Any,
) -> Table:
    """The table of the second plan, in which each row has its own best value, beside that of the first, in which all
    have the recipe's. `asked` as for `build_table`."""
    same = build_table(plans[0], store, folder, seeds, metric=asked.get("metric"), spread=False)
    tuned = build_table(plans[1], store, folder, seeds, **asked)
    metric = tuned.metric
    changes = _changes(same, tuned)
    in_trials = metric if metric.name == tuning.metric else None
    lines = []
    for one, other in zip(same.rows, tuned.rows, strict=True):
        if (row := tuning.rows.get(one.name)) is None:
            continue  # it does not apply under the recipe
        means = [trial.mean for trial in row.trials if trial.mean is not None]
        best = expected_best(means, metric.sign) if in_trials and len(means) == len(row.trials) else None
        lines.append(
            TunedLine(
                one.name, one.label, one.group, row.set, tuple(row.edges), one, other, changes[one.name],
                None if best is None else tuple(best),
            )
        )  # fmt: skip
    part = TuningPart(
        metric=metric,
        title=same.title,
        file=str(path_of(plans[0], store)),
        over=tuning.over,
        seeds=tuning.seeds,
        trials=max((len(row.trials) for row in tuning.rows.values()), default=0),
        rows=tuple(lines),
        text=tuple(order_in_words(lines, metric)),
    )
    rows = tuple(replace(row, notes=(*row.notes, *_edge_notes(tuning, row.name))) for row in tuned.rows)
    return replace(tuned, rows=rows, tuning=part)


def _edge_notes(tuning: Tuning, name: str) -> list[str]:
    row = tuning.rows.get(name)
    if row is None:
        return []
    return [
        f"its best {key}, {row.set[key]}, lies at the edge of the values tried "
        f"({', '.join(map(str, tuning.over[key]))}): others may be better still"
        for key in row.edges
    ]


def _changes(same: Table, tuned: Table) -> dict[str, Delta | None]:
    """How much each row's difference to the baseline changes, paired by seed over all four; p by Holm over the rows.

    Where the spread of its first seeds has decided how many a table has, the deviation is of these.
    """
    found: dict[str, Delta | None] = {}
    first = min((table.first for table in (same, tuned) if table.first is not None), default=None)
    there = [table.baseline_row.values() for table in (same, tuned)]
    for one, other in zip(same.rows, tuned.rows, strict=True):
        found[one.name] = None
        if one.delta is None or other.delta is None:
            continue
        sides = [one.values(), other.values(), *there]
        common = [seed for seed in sides[0] if all(seed in side for side in sides)]
        if not common:
            continue
        before = [sides[0][seed] - there[0][seed] for seed in common]
        after = [sides[1][seed] - there[1][seed] for seed in common]
        change = paired_difference(after, before, first)
        found[one.name] = Delta(change.mean, change.ci95, change.p, change.method, p_uncorrected=change.p)
    corrected = holm([each.p if each else None for each in found.values()])
    tested = sum(p is not None for p in corrected)
    return {
        name: each if each is None or p is None else replace(each, p=p, comparisons=tested)
        for (name, each), p in zip(found.items(), corrected, strict=True)
    }


def order_in_words(lines: Sequence[TunedLine], metric: Metric) -> list[str]:
    """Whether more trials would change the order of the rows, as far as the trials tell."""
    known = [line for line in lines if line.expected_best]
    trials = min((len(line.expected_best or ()) for line in known), default=0)
    if len(known) < 2 or trials < 2:
        return []
    orders = [_order(known, budget, metric.sign) for budget in range(trials)]
    settled = next(k for k in range(trials) if all(order == orders[-1] for order in orders[k:])) + 1
    pairs = [
        (f"{a.name} and {b.name}", first, last)
        for (a, b), first, last in zip(combinations(known, 2), orders[0], orders[-1], strict=True)
        if first != last
    ]
    said = [f"{names} change places" for names, first, last in pairs if first * last < 0]
    said += [f"{names} are {'told apart' if last else 'equal'}" for names, first, last in pairs if first * last == 0]
    text = f"Order by expected best: with all {trials} trials instead of one, "
    text += ", ".join(said) if said else "no two rows change places"
    if settled == trials:
        joint = "and" if said else "but"  # it changed on the way, and back
        return [f"{text}, {joint} the last of the trials still changes the order, so that more may change it again."]
    return [f"{text}, and it stays the same from {settled} trial{'s' if settled > 1 else ''} on."]


def _order(lines: Sequence[TunedLine], budget: int, sign: int) -> list[int]:
    """Which of each pair of rows is the better one at a budget: 1, -1, or 0 of equal ones."""
    values = [round(sign * (line.expected_best or ())[budget], 9) for line in lines]
    return [(a > b) - (a < b) for a, b in combinations(values, 2)]


def tuning_sheets(part: TuningPart, digits: int) -> list[Sheet]:
    """What is printed below a table: both values side by side, and the expected best against the budget."""
    lines = part.rows
    tested = next((line.change.comparisons for line in lines if line.change and line.change.comparisons), None)
    tried = ", ".join(f"{key} {', '.join(map(str, values))}" for key, values in part.over.items())
    seeds = f"{len(part.seeds)} seed{'s' if len(part.seeds) > 1 else ''} each"
    test = name_of_test(line.change for line in lines)
    notes = [
        f"Tried with every row: {tried} ({seeds}, on held-out training images).",
        f"Chosen: the best mean there ({part.file}).",
        "Change: of the difference from the baseline, own best minus same value, over the seeds of all four "
        f"[95% {test} t interval].",
        *([f"p: {test} t test, {corrected_over(tested)}."] if tested else []),
    ]
    columns = {
        "row": Column("Row", lambda line, digits: line.label, left=True),
        "chosen": Column(
            "Own best", lambda line, digits: ", ".join(f"{k}={v}" for k, v in line.chosen.items()), left=True
        ),
        "same": Column("Same value", lambda line, digits: format_mean(line.same, digits, interval=False), whole=True),
        "tuned": Column(
            "Own best value", lambda line, digits: format_mean(line.tuned, digits, interval=False), whole=True
        ),
        "difference": Column("Difference, same", lambda line, digits: format_difference(line.same, digits), whole=True),
        "after": Column("Difference, own best", lambda line, digits: format_difference(line.tuned, digits), whole=True),
        "change": Column("Change", _change, whole=True),
        "p": Column(
            "p", lambda line, digits: format_p(line.change.p) if line.change and line.change.p is not None else ""
        ),
    }
    empty: list[tuple[int, ...]] = [()] * len(lines)
    sheets = [Sheet(f"{part.title}: same value and own best value", lines, columns, digits, empty, (), notes)]
    budgets = [line for line in lines if line.expected_best]
    if budgets:
        most = max(len(line.expected_best or ()) for line in budgets)
        shown = [k for k in range(most) if k < 8 or k == most - 1 or (k + 1) & k == 0]  # then 16, 32, ... and the last
        of_budget = {"row": columns["row"], **{f"best {k + 1}": _best(k) for k in shown}}
        about = [f"Expected best: {BUDGET}, of so many trials.", "On held-out images, so not the numbers of the table."]
        title = f"Expected best {part.metric.phrase} against the number of trials, {part.title}"
        sheets.append(Sheet(title, budgets, of_budget, digits, empty[: len(budgets)], (), [*about, *part.text]))
    return sheets


def _best(k: int) -> Column:
    return Column(
        f"{k + 1} trial{'s' if k else ''}",
        lambda line, digits: f"{line.expected_best[k]:.{digits}f}" if k < len(line.expected_best) else "",
    )


def _change(line: TunedLine, digits: int) -> str:
    if line.change is None:
        return ""
    return f"{line.change.mean:+.{digits}f} {format_pair(line.change.ci95, digits, '+')}".strip()
