"""The table of an experiment from its records, as the JSON of the contract: numbers, tests, audit and what they allow.

How it is printed is in `render.py` and its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from metaformer_ablate.analysis.tables.audit import as_warning, audit
from metaformer_ablate.analysis.tables.image_tests import test_on_images
from metaformer_ablate.cost.cost import cached_cost
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.status import RunState, as_dict, no_records_hint, run_states, seeds_with_records
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan, row_notes
from metaformer_ablate.statistics import stats
from metaformer_ablate.statistics.agreement import agreement, measured_column, paper_column
from metaformer_ablate.statistics.power import Pairs, detectable_difference, required_seeds
from metaformer_ablate.statistics.stats import holm, paired_difference, summarise


def build_table(
    plan: Plan,
    store: Store,
    folder: DataFolder,
    seeds: Sequence[int] | None = None,
    images: bool = False,
    power: float | None = None,
) -> dict[str, Any]:
    """The table as plain values, with the keys of the contract. Top-1 in percent.

    Means are over ok runs. `delta` pairs the seeds that the row and the baseline both have; it is null for the
    baseline and where a seed of either diverged, for what is left would be a choice of the fortunate ones.

    With `images` each row also has McNemar's tests against the baseline from the predictions, which have to be read
    for it. With `power`, a difference in points, the table says how many seeds would find it.
    """
    found = tuple(seeds) if seeds is not None else seeds_with_records(plan, store)
    # Of what each row is trained on, which an override may have made another than the recipe's.
    data = {(spec.data.name, spec.data.reader) for spec in plan.specs.values()}
    fingerprints = {name: folder.fingerprint(name, reader) for name, reader in data}
    runs: dict[str, list[RunState]] = {row: [] for row in plan.experiment.rows}
    for name, spec in plan.specs.items():
        runs[name] = run_states(spec, found, store, fingerprints[spec.data.name])
    base = plan.experiment.baseline
    pairs = {row: [] if row == base else _pairs(states, runs[base]) for row, states in runs.items()}
    differences = {row: paired_difference(*zip(*p, strict=True)) if p else None for row, p in pairs.items()}
    corrected = dict(zip(runs, holm([d.p if d else None for d in differences.values()]), strict=True))
    on_images = test_on_images(runs, base, store) if images else {}
    rows = []
    for name, states in runs.items():
        row = plan.experiment.rows[name]
        summary = summarise(_top1s(states))
        difference = differences[name]
        records = [state.record for state in states if state.record is not None]
        counts = next((r.data for r in records if r.data["params"] is not None), None)
        if counts is None:  # no record yet: what `show` has counted on this machine, if it has
            known = cached_cost(plan.specs[name]) if name in plan.specs else None
            counts = asdict(known) if known else {}
        rows.append(
            {
                "name": name,
                "label": row.label,
                "group": row.group,
                "set": row.sets(plan.recipe.name),
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
                "bootstrap": _bootstrap(_top1s(states), pairs[name]),
                "images": on_images.get(name),
                "paper": row.paper,
                "status": _row_status(states),
                "notes": row_notes(plan, name) + _run_notes(states),
                "runs": [{**as_dict(state), "top1": state.top1} for state in states],
            }
        )
    findings = audit(plan, runs)
    table = {
        "experiment": plan.experiment.name,
        "recipe": plan.recipe.name,
        "metric": "top1",
        "rows": rows,
        "warnings": [*_warnings(rows, store, no_records_hint(plan, store, found)), *map(as_warning, findings)],
        "audit": findings,
        "resolution": detectable_difference(list(pairs.values())),
        "agreement": agreement(measured_column(plan.recipe.name, rows), paper_column(rows)),
    }
    if power is not None:
        table["power"] = required_seeds(power, list(pairs.values()))
    return table


def _top1s(states: Sequence[RunState]) -> list[float]:
    return [state.top1 for state in states if state.top1 is not None]


def _pairs(states: Sequence[RunState], baseline: Sequence[RunState]) -> Pairs:
    """The top-1 of both for each seed that both have; none where a seed of either diverged."""
    if any(state.status == "diverged" for state in (*states, *baseline)):
        return []
    here, there = ({s.seed: s.top1 for s in side if s.top1 is not None} for side in (states, baseline))
    return [(top1, there[seed]) for seed, top1 in here.items() if seed in there]


def _bootstrap(top1s: list[float], pairs: Pairs) -> dict[str, Any] | None:
    """Intervals over seeds without the assumption of a distribution; None where there are too few seeds for them."""
    mean, delta = (stats.bootstrap_interval(values) for values in (top1s, [here - there for here, there in pairs]))
    if mean is None and delta is None:
        return None
    return {"ci95": _list(mean), "delta_ci95": _list(delta), "method": stats.BOOTSTRAP}


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


def _warnings(rows: Sequence[dict[str, Any]], store: Store, hint: str | None) -> list[str]:
    warnings = [*store.problems.values(), *([hint] if hint else [])]
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
