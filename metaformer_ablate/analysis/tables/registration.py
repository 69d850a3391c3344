"""What became of a study that was written down beforehand, as a table and the report say it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from metaformer_ablate.analysis.tables.columns import format_p, format_pair
from metaformer_ablate.analysis.tables.ranking import paper_column
from metaformer_ablate.analysis.tables.types import TableRow, plain
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.registration import Registration, path_of, read_registration, rows_with_other_runs
from metaformer_ablate.records.seed_counts import read_seed_counts
from metaformer_ablate.records.status import RunState, look_up
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.statistics.agreement import RankedColumn, agreement, clear_pairs
from metaformer_ablate.statistics.hypotheses import OPEN, Verdict, judge, read_hypothesis
from metaformer_ablate.tasks.base import Metric, Task

Runs = dict[str, list[RunState]]

_ENDED = ("ok", "diverged")


def registered_study(
    plan: Plan, store: Store, folder: DataFolder, rows: Sequence[TableRow], task: Task
) -> Mapping[str, Any] | None:
    """The registration of a plan and its verdicts, None where it has none. `rows` have the paper's numbers.

    The verdicts are over the registered runs, whatever a table shows. Raises RequestError for a file that is none.
    """
    path = path_of(plan)
    registration = None if plan.choices else read_registration(path)
    if registration is None:
        return None
    metric = task.metric(registration.metric)
    counts = _counts(plan, registration, store)
    runs = _runs(plan, registration, store, folder, counts)
    verdicts = _verdicts(registration, runs, rows, metric)
    problems = _problems(plan, registration)
    states = {state.run_id: state for row in runs.values() for state in row}
    before = _before(registration, states.values())
    shown = {run.seed for row in rows for run in row.runs if run.record is not None}
    found: dict[str, Any] = {
        "file": str(path),
        "registered": registration.registered,
        "digest": registration.digest,
        "question": registration.question,
        "stopping": registration.stopping.rule,
        "changes": plain([change.model_dump() for change in registration.changes]),
        "runs": len(states),
        "ended": sum(state.status in _ENDED for state in states.values()),
        "before": before,
        "other_seeds": sorted(shown - set(registration.seeds)),
        "problems": problems,
        "hypotheses": plain(verdicts),
    }
    return {**found, "text": _in_words(found, registration, verdicts, metric)}


def try_registered_study(
    plan: Plan, store: Store, folder: DataFolder, rows: Sequence[TableRow], task: Task
) -> tuple[Mapping[str, Any] | None, list[str]]:
    """`registered_study` and warnings: a file that cannot be read takes nobody's table away."""
    try:
        found = registered_study(plan, store, folder, rows, task)
    except RequestError as error:
        return None, [f"the registration cannot be read: {error}"]
    return found, [] if found is None else list(found["problems"])


def _counts(plan: Plan, registration: Registration, store: Store) -> Mapping[str, int] | None:
    """The seeds of each row where the registered rule has decided them; None where they are fixed, or open still."""
    rule = registration.stopping
    if rule.until is None or (found := read_seed_counts(plan, store)) is None:
        return None
    same = (found.until, found.first, found.max_seeds) == (rule.until, rule.first, rule.max_seeds)
    return found.seeds if same else None


def _runs(
    plan: Plan, registration: Registration, store: Store, folder: DataFolder, counts: Mapping[str, int] | None
) -> Runs:
    """The registered runs as they stand, whatever the plan of today would run; of `counts` as many as they say."""
    specs = dict(plan.everything())
    found: Runs = {}
    for row, ids in registration.runs.items():
        data = specs[row].data if row in specs else None
        fingerprint = None if data is None else folder.fingerprint(data.name, data.reader)
        pairs = list(zip(ids, registration.seeds, strict=False))[: counts[row] if counts and row in counts else None]
        found[row] = [look_up(run_id, seed, store, fingerprint) for run_id, seed in pairs]
    return found


def _verdicts(registration: Registration, runs: Runs, rows: Sequence[TableRow], metric: Metric) -> list[Verdict]:
    values = {
        row: {state.seed: value for state in states if (value := state.value(metric.name)) is not None}
        for row, states in runs.items()
    }
    unfinished = [row for row, states in runs.items() if any(state.status not in _ENDED for state in states)]
    diverged = [row for row, states in runs.items() if any(state.status == "diverged" for state in states)]
    hypotheses = [read_hypothesis(text, list(registration.runs)) for text in registration.hypotheses]
    table_rows = {row.name for row in rows}
    ours = RankedColumn(
        "registered runs",
        {
            row: round(sum(found.values()) / len(found), 9)
            for row, found in values.items()
            if found and row not in diverged and row in table_rows
        },
        values,
    )
    return judge(
        hypotheses,
        values,
        unfinished,
        diverged,
        _measures(ours, paper_column(rows, metric.name), metric.sign),
        registration.stopping.first,
    )


def _measures(ours: RankedColumn, paper: RankedColumn, sign: int) -> dict[str, float | None]:
    found = agreement(ours, paper, sign)
    ranks = {name: found[name]["value"] if found else None for name in ("kendall", "spearman")}
    in_order, pairs = clear_pairs(ours, paper)
    return {**ranks, "clear_pairs": in_order / pairs if pairs else None}


def _problems(plan: Plan, registration: Registration) -> list[str]:
    """What speaks against calling the runs those that were planned."""
    found = []
    if registration.digest != registration.right_digest:
        found.append("the registration was edited after it was written: its digest is that of another text")
    now = {row: list(spec.ids(registration.seeds)) for row, spec in plan.everything()}
    if other := rows_with_other_runs(registration, now, registration.seeds):
        found.append(
            f"the experiment or the recipe has changed since it was registered: {', '.join(other)} would be other runs"
        )
    if new := [row for row in now if row not in registration.runs]:
        found.append(f"not registered: the rows {', '.join(new)}")
    return found


def _before(registration: Registration, states: Iterable[RunState]) -> list[str]:
    """The runs that were started before the first registration, or whose record does not say when."""
    records = [state.record for state in states if state.record is not None]
    return [record.run_id for record in records if registration.is_before(record) is not False]


def _in_words(
    found: Mapping[str, Any], registration: Registration, verdicts: Sequence[Verdict], metric: Metric
) -> list[str]:
    seeds = ", ".join(map(str, registration.seeds))
    before = len(found["before"])
    started = {0: "none of them was started before"}.get(before, f"{before} of them were started before")
    lines = [
        f"Registered {_date(registration.first_registered)} in {found['file']} (digest {registration.digest[:12]}): "
        f"{found['runs']} runs, seeds {seeds}; {started}; {found['ended']} have ended. "
        f"Stopping rule: {registration.stopping.rule}."
    ]
    for change in registration.changes:
        lines.append(
            f"Plan changed {_date(change.until)}, when {change.records} of its runs were there: "
            f"{'; '.join(change.what)}. Reason: {change.reason}."
        )
    if found["other_seeds"]:
        lines.append(f"Not registered: the runs of seeds {', '.join(map(str, found['other_seeds']))} in this table.")
    tested = sum(" >= " not in each.text for each in verdicts)
    if verdicts:
        corrected = f" (p by Holm over the {tested} registered hypotheses of rows)" if tested > 1 else ""
        lines.append(f"Hypotheses, over the registered runs{corrected}:")
        lines += [f"{each.text}: {verdict_in_words(each, metric)}." for each in verdicts]
    return lines


def verdict_in_words(each: Verdict, metric: Metric) -> str:
    """`held, -2.71 [-3.10, -2.32], p = 0.003`."""
    parts = [each.verdict]
    if each.mean is not None:
        interval = format_pair(each.interval, metric.digits, "+")
        parts.append(f"{each.mean:+.{metric.digits}f} {interval}".strip())
    if each.p is not None:
        parts.append(f"p {format_p(each.p)}".replace("p 0", "p = 0").replace("p <", "p < "))
    if each.value is not None:
        parts.append(f"{each.value:.2f}")
    if each.why and each.verdict != OPEN:
        parts.append(each.why)
    return ", ".join(parts) + (f" ({each.why})" if each.why and each.verdict == OPEN else "")


def _date(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text
