"""The table of an experiment from its records: numbers, tests, audit and what they allow.

How it is printed is in `render.py` and its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from metaformer_ablate.analysis.tables.audit import audit
from metaformer_ablate.analysis.tables.columns import difference_range, metric_range
from metaformer_ablate.analysis.tables.equivalence import test_equivalence, within_margin
from metaformer_ablate.analysis.tables.image_tests import test_on_images
from metaformer_ablate.analysis.tables.interactions import build_interactions
from metaformer_ablate.analysis.tables.ranking import measured_column, paper_column
from metaformer_ablate.analysis.tables.registration import try_registered_study
from metaformer_ablate.analysis.tables.seed_counts import counts_for, seed_counts_part
from metaformer_ablate.analysis.tables.spread import spread_of
from metaformer_ablate.analysis.tables.types import (
    Bootstrap,
    Delta,
    EquivalenceTest,
    ImageTest,
    Interval,
    Table,
    TableRow,
)
from metaformer_ablate.cost.cost import cached_cost
from metaformer_ablate.cost.counting import lower_bound_notes, open_operators
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.status import RunState, no_records_hint, run_states, seeds_with_records, stray_seeds
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.notes import row_notes
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.statistics import stats
from metaformer_ablate.statistics.agreement import agreement
from metaformer_ablate.statistics.effects import probability_better, standardised
from metaformer_ablate.statistics.power import Pairs, detectable_difference, required_seeds
from metaformer_ablate.statistics.stats import holm, paired_difference, summarise
from metaformer_ablate.tasks.base import Metric, Task
from metaformer_ablate.tasks.registry import get_task, task_of

Runs = Mapping[str, Sequence[RunState]]


def build_table(
    plan: Plan,
    store: Store,
    folder: DataFolder,
    seeds: Sequence[int] | None = None,
    images: bool = False,
    power: float | None = None,
    metric: str | None = None,
    equivalent: float | None = None,
    spread: bool = True,
) -> Table:
    """The table of a plan, for a metric of its task by name or for the reported one.

    Means are over ok runs. `delta` pairs the seeds that the row and the baseline both have; it is None for the
    baseline and where a seed of either diverged, for what is left would be a choice of the fortunate ones.

    With `images` each row also has tests over the images against the baseline from the predictions, which have to be
    read for it. With `power`, a difference in the metric's difference unit, the table says how many seeds would find
    it; with `equivalent`, another, which rows are shown to lie within that of the baseline. Without `spread`, no files
    are read for where the spread comes from. Raises RequestError for a metric that the task does not have.
    """
    task = plan_task(plan)
    chosen = task.metric(metric)
    counts, warned = counts_for(plan, store, seeds)
    first = None if counts is None else counts.first
    found = tuple(seeds) if seeds is not None else seeds_with_records(plan, store)
    each = None if counts is None else counts.seeds
    known = _states(plan, store, folder, found, each)
    runs = {row: known.get(row, []) for row in plan.experiment.rows}
    base = plan.experiment.baseline
    pairs = {row: [] if row == base else _pairs(runs[row], runs[base], chosen) for row in runs}
    deltas = _deltas(pairs, chosen.sign, first)
    equal = test_equivalence(pairs, equivalent, first)
    on_images = test_on_images(runs, base, store, task, chosen) if images else {}
    rows = tuple(
        _table_row(plan, name, states, chosen, deltas[name], pairs[name], on_images.get(name), equal.get(name))
        for name, states in runs.items()
    )
    together = _states(plan, store, folder, found, each, combined=True)
    findings = audit(plan, {**runs, **together}, chosen)
    printed = chosen.difference_unit, chosen.digits  # as the sentences below have numbers
    # Of a number of seeds that the spread has decided, this is not known: the seeds of the rows differ by design.
    resolution = detectable_difference(list(pairs.values()), *printed) if first is None else None
    hints = [no_records_hint(plan, store, found), stray_seeds(runs) if seeds is None and counts is None else None]
    warnings = [*_warnings(rows, store, [hint for hint in hints if hint], each is None), *warned]
    registration, mind = try_registered_study(plan, store, folder, rows, task)
    interactions = build_interactions(plan, runs, together, chosen, first) if plan.combinations else None
    return Table(
        experiment=plan.experiment.name,
        recipe=plan.recipe.name,
        overrides=(*plan.overrides, *(["--tuned"] if plan.choices else [])),
        baseline=base,
        task=task,
        metric=chosen,
        rows=rows,
        warnings=(*warnings, *mind, *(finding.warning for finding in findings)),
        audit=findings,
        resolution=resolution,
        spread=spread_of(runs, base, pairs, resolution, task, chosen) if spread else None,
        agreement=agreement(
            measured_column(plan.recipe.name, rows, first), paper_column(rows, chosen.name), chosen.sign
        ),
        power=None if power is None else required_seeds(power, [found[:first] for found in pairs.values()], *printed),
        equivalent=None if equivalent is None else within_margin(equal, equivalent, resolution, chosen),
        interactions=interactions,
        registration=registration,
        seed_counts=None if counts is None else seed_counts_part(counts, pairs, task, chosen),
        first=first,
    )


def plan_task(plan: Plan) -> Task:
    """The task of a plan, which its recipe says."""
    for spec in plan.specs.values():
        return task_of(spec)
    return get_task()


def _states(
    plan: Plan,
    store: Store,
    folder: DataFolder,
    seeds: Sequence[int],
    counts: Mapping[str, int] | None = None,
    combined: bool = False,
) -> dict[str, list[RunState]]:
    """The runs of every row, or of every combination, as they stand, one per seed; of `counts` as many as they say."""
    together = {each.row.name: each.spec for each in plan.combinations if each.spec is not None}
    specs = together if combined else plan.specs
    # Of what each row is trained on, which an override may have made another than the recipe's.
    data = {(spec.data.name, spec.data.reader) for spec in specs.values()}
    fingerprints = {name: folder.fingerprint(name, reader) for name, reader in data}
    own = {name: seeds if counts is None else range(counts[name]) for name in specs}
    return {name: run_states(spec, own[name], store, fingerprints[spec.data.name]) for name, spec in specs.items()}


def _values(states: Sequence[RunState], metric: Metric) -> dict[int, float]:
    found = ((state.seed, state.value(metric.name)) for state in states)
    return {seed: value for seed, value in found if value is not None}


def _pairs(states: Sequence[RunState], baseline: Sequence[RunState], metric: Metric) -> Pairs:
    """The metric of both for each seed that both have; none where a seed of either diverged."""
    if any(state.status == "diverged" for state in (*states, *baseline)):
        return []
    here, there = (_values(side, metric) for side in (states, baseline))
    return [(value, there[seed]) for seed, value in here.items() if seed in there]


def _deltas(pairs: Mapping[str, Pairs], sign: int, first: int | None = None) -> dict[str, Delta | None]:
    """The paired difference of every row, p corrected over the rows; `first` as of `paired_difference`."""
    apart = {row: [here - there for here, there in p] for row, p in pairs.items()}
    found = {
        row: paired_difference([a for a, _ in p], [b for _, b in p], first) if p else None for row, p in pairs.items()
    }
    corrected = holm([d.p if d else None for d in found.values()])
    tested = sum(p is not None for p in corrected)
    return {
        row: None
        if d is None
        else Delta(
            d.mean,
            d.ci95,
            p,
            d.method,
            p_uncorrected=d.p,
            comparisons=None if p is None else tested,
            effect=standardised(apart[row], first),
            better=probability_better(apart[row], sign),
        )
        for (row, d), p in zip(found.items(), corrected, strict=True)
    }


def _table_row(
    plan: Plan,
    name: str,
    states: Sequence[RunState],
    metric: Metric,
    delta: Delta | None,
    pairs: Pairs,
    images: ImageTest | None,
    equivalence: EquivalenceTest | None,
) -> TableRow:
    row = plan.experiment.rows[name]
    values = list(_values(states, metric).values())
    summary, counts = summarise(values), _counts(plan, name, states)
    return TableRow(
        metric=metric,
        name=name,
        label=row.label,
        group=row.group,
        set=row.sets(plan.recipe.name),
        **counts,
        n=summary.n,
        mean=summary.mean,
        std=summary.std,
        ci95=summary.ci95,
        delta=delta,
        bootstrap=_bootstrap(values, pairs),
        images=images,
        equivalence=equivalence,
        paper=row.printed(plan.recipe.name),
        status=_row_status(states),
        notes=(
            *row_notes(plan, name),
            *lower_bound_notes(counts["uncounted"] or ()),
            *_run_notes(states),
            *_absurd(metric, summary.ci95, delta),
        ),
        runs=tuple(states),
        short=row.short,
    )


def _counts(plan: Plan, name: str, states: Sequence[RunState]) -> dict[str, Any]:
    """Parameters and MACs: a record's, or what `show` has counted on this machine, if it has.

    What has been counted since stands over a record's lower bound.
    """
    records = [state.record for state in states if state.record is not None]
    counts = next((r.data for r in records if r.data["params"] is not None), None)
    if counts is None or open_operators(counts.get("uncounted") or ()):
        known = cached_cost(plan.specs[name]) if name in plan.specs else None
        counts = asdict(known) if known else counts or {}
    return {key: counts.get(key) for key in ("params", "frozen_params", "macs", "uncounted")}


def _bootstrap(values: list[float], pairs: Pairs) -> Bootstrap | None:
    """Intervals over seeds without the assumption of a distribution; None where there are too few seeds for them."""
    mean, delta = (stats.bootstrap_interval(side) for side in (values, [here - there for here, there in pairs]))
    return None if mean is None and delta is None else Bootstrap(mean, delta, stats.BOOTSTRAP)


def _absurd(metric: Metric, mean: Interval | None, delta: Delta | None) -> list[str]:
    """A note where an interval holds what cannot be."""
    difference = delta.ci95 if delta else None
    (low, high), (least, most) = metric_range(metric), difference_range(metric)
    outside = mean and (mean[0] < low or mean[1] > high)
    if not outside and not (difference and (difference[0] < least or difference[1] > most)):
        return []
    return [f"too few seeds: an interval reaches beyond the scale of {low:g} to {high:g} and is cut off there"]


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
    shown = ("diverged", "failed", "stale", "missing")
    for status in shown if any(state.status != "missing" for state in states) else ():
        if seeds := [state.seed for state in states if state.status == status]:
            notes.append(f"{status}: seed {', '.join(map(str, seeds))}")
    if seeds := [s.seed for s in states if s.status == "ok" and s.record and s.record.data.get("at_chance")]:
        notes.append(f"at chance: seed {', '.join(map(str, seeds))}")
    return notes


def _warnings(rows: Sequence[TableRow], store: Store, hints: Sequence[str], even: bool) -> list[str]:
    warnings = [*store.problems.values(), *hints]
    done = [row for row in rows if row.n]
    if done and min(row.n for row in done) == 1:
        warnings.append("one seed: a difference between rows cannot be told from chance; run more with --seeds 3")
    if even and len({row.n for row in done}) > 1:
        warnings.append("rows have different numbers of seeds; differences are over the seeds that both rows have")
    if any(run.status == "stale" for row in rows for run in row.runs):
        warnings.append("stale runs were trained on other data than today's; they are shown but not counted")
    return warnings
