"""The table of an experiment from its records, as the JSON of the contract: numbers, tests, audit and what they allow.

How it is printed is in formats.py, whose names can be imported from here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import mode
from typing import Any
from zipfile import BadZipFile

from metaformer_ablate.analysis import stats
from metaformer_ablate.analysis.agreement import agreement, measured, printed
from metaformer_ablate.analysis.audit import as_warning, audit
from metaformer_ablate.analysis.stats import holm, paired_difference, summarise
from metaformer_ablate.cost import remembered
from metaformer_ablate.data.files import DataFolder
from metaformer_ablate.experiment import Plan, row_notes
from metaformer_ablate.records import Store
from metaformer_ablate.sweep import RunState, as_dict, none_of, seeds_with_records, states_of
from metaformer_ablate.yaml_reader import RequestError

Pairs = list[tuple[float, float]]  # top-1 of the row and of the baseline, a pair a seed


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
        runs[name] = states_of(spec, found, store, fingerprints[spec.data.name])
    base = plan.experiment.baseline
    pairs = {row: [] if row == base else _pairs(states, runs[base]) for row, states in runs.items()}
    differences = {row: paired_difference(*zip(*p, strict=True)) if p else None for row, p in pairs.items()}
    corrected = dict(zip(runs, holm([d.p if d else None for d in differences.values()]), strict=True))
    on_images = _on_images(runs, base) if images else {}
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
        "warnings": [*_warnings(rows, store, none_of(plan, store, found)), *map(as_warning, findings)],
        "audit": findings,
        "resolution": resolution(list(pairs.values())),
        "agreement": agreement(measured(plan.recipe.name, rows), printed(rows)),
    }
    if power is not None:
        table["power"] = seeds_for(power, list(pairs.values()))
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


# ---------------------------------------------------------------------------------------------------------------------
# What the seeds allow


def resolution(pairs: Sequence[Pairs]) -> dict[str, Any] | None:
    """What the seeds of a table can tell apart, from the spread of the paired differences of its typical row.

    `n` is the number of pairs that most rows have. `half_width` is that of the paired interval: smaller observed
    differences cannot be told from none. `detectable` is the true difference that is found with probability 0.8: where
    one row is tested, and where Holm corrects over all of them (at its strictest step). None where there is no spread.
    """
    compared = [p for p in pairs if len(p) > 1]
    std = stats.typical_std([[here - there for here, there in p] for p in compared])
    if std is None:
        return None
    rows = len(compared)
    n = mode(sorted(map(len, compared)))
    alone, holm_first = (stats.detectable(std, n, stats.LEVEL / tests) for tests in (1, rows))
    half = stats.half_width(std, n)
    return {
        "n": n,
        "rows": rows,
        "std": std,
        "half_width": half,
        "detectable": {"alone": alone, "holm": holm_first},
        "method": "paired t at 5%, noncentral t for 80% power; deviation of paired differences: the median row's",
        "text": f"With {n} seeds, differences below {half:.2f} points cannot be told apart: half of a paired 95% "
        f"interval at the deviation of the median row, {std:.2f}. A true difference is found (p < 0.05) in 8 of 10 "
        f"such tables from {alone:.2f} on if one row is tested, from {holm_first:.2f} on if Holm corrects over {rows}.",
    }


def seeds_for(difference: float, pairs: Sequence[Pairs]) -> dict[str, Any]:
    """How many seeds find a true difference, in points, with probability 0.8; null where no spread is known."""
    known = resolution(pairs)
    found: dict[str, Any] = {"difference": difference, "power": stats.POWER, "seeds": None}
    if known is None:
        return {**found, "text": "How many seeds are needed is not known: no row has two pairs of runs that differ."}
    levels = {"alone": stats.LEVEL, "holm": stats.LEVEL / known["rows"]}
    seeds = {name: stats.seeds_needed(difference, known["std"], level) for name, level in levels.items()}
    alone, first = (f"over {stats.MOST_SEEDS_NEEDED}" if n is None else str(n) for n in seeds.values())
    text = f"A true difference of {difference:g} points is found (p < 0.05) in 8 of 10 tables with {alone} seeds if "
    text += f"one row is tested, with {first} if Holm corrects over {known['rows']}; the deviation of paired "
    text += f"differences is taken as {known['std']:.2f}, the median row's over {known['n']} seeds."
    return {**found, "seeds": seeds, "method": known["method"], "text": text}


# ---------------------------------------------------------------------------------------------------------------------
# Images


def _on_images(runs: Mapping[str, Sequence[RunState]], base: str) -> dict[str, dict[str, Any]]:
    """Row to its tests over images against the baseline, where the predictions are of the same images."""
    if any(state.status == "diverged" for state in runs[base]):
        return {}
    baseline = {state.seed: _answers(state) for state in runs[base] if state.status == "ok"}
    found: dict[str, dict[str, Any]] = {}
    for name, states in runs.items():
        if name == base or any(state.status == "diverged" for state in states):
            continue
        answers = {state.seed: _answers(state) for state in states if state.status == "ok" and state.seed in baseline}
        if not answers:
            continue
        if any(not _same(answers[seed][0], baseline[seed][0]) for seed in answers):
            found[name] = {
                "images": None,
                "p": None,
                "method": "none: the predictions are of other images",
                "seeds": [],
            }
            continue
        right, theirs = ({seed: side[seed][1] for seed in answers} for side in (answers, baseline))
        test = stats.compare_on_images(right, theirs)
        found[name] = {"images": test.images, "p": test.p, "method": stats.SIGN_FLIP, "seeds": list(test.seeds)}
        found[name]["seed_method"] = stats.MCNEMAR
    for name, p in zip(found, holm([test["p"] for test in found.values()]), strict=True):
        found[name]["p"] = p
    return found


def _answers(state: RunState) -> tuple[Any, Any]:
    """The labels of the evaluation split and which of them a run has right."""
    assert state.record is not None
    try:
        predictions = state.record.predictions()
        return predictions["label"], predictions["label"] == predictions["predicted"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise RequestError(f"{state.record.folder / 'predictions.npz'}: cannot be read: {error}") from None


def _same(labels: Any, others: Any) -> bool:
    return labels.shape == others.shape and bool((labels == others).all())


# ---------------------------------------------------------------------------------------------------------------------
# Words about rows


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
