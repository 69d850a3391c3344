"""Interactions: do the changes of two rows add up, where both are made at once? A part of a table of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaformer_ablate.analysis.tables.columns import Column, LatexColumn, format_p, format_pair
from metaformer_ablate.analysis.tables.sheet import Sheet
from metaformer_ablate.analysis.tables.types import (
    Delta,
    Finding,
    Interval,
    flat_interval,
    name_of_test,
    plain,
    run_json,
)
from metaformer_ablate.records.status import RunState
from metaformer_ablate.spec.plan import Combination, Plan
from metaformer_ablate.statistics.effects import standardised
from metaformer_ablate.statistics.stats import corrected_over, holm, paired_difference, summarise
from metaformer_ablate.tasks.base import Metric

Runs = Mapping[str, Sequence[RunState]]


@dataclass(frozen=True)
class Shift:
    """A mean difference from the baseline over seeds, with its paired t interval."""

    mean: float
    ci95: Interval | None


@dataclass(frozen=True)
class Interaction:
    """Two rows at once. `sum` is that of the two differences from the baseline, `both` the difference of the combined
    row, `difference` both minus sum, over the `n` seeds that all four have; None where a seed of one diverged."""

    metric: Metric
    name: str
    rows: tuple[str, str]
    label: str
    set: Mapping[str, Any]
    n: int
    sum: Shift | None
    both: Shift | None
    difference: Delta | None
    notes: tuple[str, ...]
    runs: tuple[RunState, ...]

    @property
    def group(self) -> str:
        return ""

    def values(self) -> dict[int, float]:
        """The metric by seed, of the runs that are ok."""
        found = ((run.seed, run.value(self.metric.name)) for run in self.runs)
        return {seed: value for seed, value in found if value is not None}

    def flat(self) -> dict[str, Any]:
        """One line of plain cells, named as those of a row where they are the same things."""
        found, own = summarise(list(self.values().values())), self.difference
        return {
            **{key: getattr(self, key) for key in ("name", "label", "group")},
            **{key: getattr(found, key) for key in ("n", "mean", "std")},
            **flat_interval("ci95", found.ci95),
            "delta_mean": self.both and self.both.mean,
            **flat_interval("delta_ci95", self.both.ci95 if self.both else None),
            "notes": "; ".join(self.notes),
            "run_ids": " ".join(run.run_id for run in self.runs if run.status == "ok"),
            "interaction_of": " ".join(self.rows),
            "interaction_n": self.n,
            "interaction_sum": self.sum and self.sum.mean,
            "interaction_difference": own and own.mean,
            **flat_interval("interaction_ci95", own.ci95 if own else None),
            "interaction_p": own and own.p,
        }

    def to_json(self) -> dict[str, Any]:
        names = ("name", "rows", "label", "set", "n", "sum", "both", "difference", "notes")
        tree = {name: plain(getattr(self, name)) for name in names}
        return {**tree, "runs": [run_json(run, self.metric) for run in self.runs]}


def build_interactions(
    plan: Plan, runs: Runs, combined: Runs, metric: Metric, first: int | None = None
) -> tuple[Interaction, ...]:
    """The interactions of a plan; `runs` are of its rows, `combined` of its combinations. p by Holm over them.

    `first` as of `paired_difference`.
    """
    found = [
        _interaction(plan, each, runs, combined.get(each.row.name, ()), metric, first) for each in plan.combinations
    ]
    corrected = holm([each.difference.p if each.difference else None for each in found])
    tested = sum(p is not None for p in corrected)
    return tuple(
        each
        if each.difference is None or p is None
        else replace(each, difference=replace(each.difference, p=p, comparisons=tested))
        for each, p in zip(found, corrected, strict=True)
    )


def _interaction(
    plan: Plan, combination: Combination, runs: Runs, together: Sequence[RunState], metric: Metric, head: int | None
) -> Interaction:
    first, second = combination.rows
    sides = [runs[plan.experiment.baseline], runs[first], runs[second], together]
    values = [{s.seed: value for s in side if (value := s.value(metric.name)) is not None} for side in sides]
    diverged = sorted({state.seed for side in sides for state in side if state.status == "diverged"})
    common = [seed for seed in values[3] if all(seed in side for side in values)] if not diverged else []
    base, one, other, both = ([side[seed] for seed in common] for side in values)
    expected = [a + b - 2 * zero for a, b, zero in zip(one, other, base, strict=True)]
    found = [b - zero for b, zero in zip(both, base, strict=True)]
    notes = [f"not applicable: {combination.why}"] if combination.why else []
    notes += [f"diverged, here or in a row of it: seed {', '.join(map(str, diverged))}"] if diverged else []
    return Interaction(
        metric=metric,
        name=combination.row.name,
        rows=combination.rows,
        label=combination.row.label,
        set=combination.row.sets(plan.recipe.name),
        n=len(common),
        sum=_shift(expected, head),
        both=_shift(found, head),
        difference=_test(found, expected, head),
        notes=tuple(notes),
        runs=tuple(together),
    )


def _shift(values: Sequence[float], head: int | None) -> Shift | None:
    if not values:
        return None
    found = paired_difference(values, [0.0] * len(values), head)
    return Shift(found.mean, found.ci95)


def _test(both: Sequence[float], expected: Sequence[float], head: int | None) -> Delta | None:
    if not both:
        return None
    found = paired_difference(both, expected, head)
    effect = standardised([b - e for b, e in zip(both, expected, strict=True)], head)
    return Delta(found.mean, found.ci95, found.p, found.method, p_uncorrected=found.p, effect=effect)


def interactions_sheet(
    title: str, interactions: Sequence[Interaction], digits: int, audit: Sequence[Finding] = ()
) -> Sheet:
    """What is printed below a table, with the findings of its audit that are of a combination."""
    numbers: dict[str, int] = {}
    notes = [
        [*(f"audit: {finding.text}" for finding in audit if each.name in finding.rows), *each.notes]
        for each in interactions
    ]
    marks = [[numbers.setdefault(note, len(numbers) + 1) for note in own] for own in notes]
    tested = next((d.comparisons for each in interactions if (d := each.difference) and d.comparisons), None)
    test = name_of_test(each.difference for each in interactions)
    lines = [
        "Sum: the differences of the two rows from the baseline, added.",
        "Both: the difference of a row with both changes.",
        f"Difference: Both minus Sum over common seeds, 0 where the changes add up [95% {test} t interval].",
        *([f"p: {test} t test, {corrected_over(tested)}."] if tested else []),
    ]
    columns = {
        "row": Column("Rows", lambda row, digits: row.label, left=True),
        "n": Column("n", lambda row, digits: str(row.n)),
        "sum": _shift_column("Sum", "sum"),
        "both": _shift_column("Both", "both"),
        "difference": _shift_column("Difference", "difference"),
        "p": Column("p", lambda row, digits: format_p(row.difference.p) if _has_p(row) else ""),
    }
    footnotes = [(number, note) for note, number in numbers.items()]
    ids = [[run.run_id for run in each.runs] for each in interactions]
    return Sheet(f"Interactions of {title}", interactions, columns, digits, marks, footnotes, lines, ids)


def _has_p(each: Interaction) -> bool:
    return each.difference is not None and each.difference.p is not None


def _shift_column(heading: str, name: str) -> Column:
    def mean(row: Interaction, digits: int) -> str:
        found = getattr(row, name)
        return "" if found is None else f"{found.mean:+.{digits}f}"

    def interval(row: Interaction, digits: int) -> str:
        found = getattr(row, name)
        return format_pair(found.ci95 if found else None, digits, "+")  # a sum of differences has no bounds of its own

    parts = (LatexColumn(heading, mean), LatexColumn("95% interval", interval))
    return Column(
        heading, lambda row, digits: f"{mean(row, digits)} {interval(row, digits)}".strip(), whole=True, parts=parts
    )
