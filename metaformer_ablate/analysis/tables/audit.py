"""The fairness audit: do the runs of a row differ from the baseline's in anything that the row does not declare?

What a row sets is its point and no finding, nor is what follows from it: a field that nothing reads any more, the
depths of another model size, the images seen in more epochs. Specs are compared as planned, for a run's id is the hash
of its spec; what happened in a run is read from its record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaformer_ablate.analysis.tables.types import Finding
from metaformer_ablate.data.rules import REMARKS
from metaformer_ablate.records.record import LATER_PACKAGES, Record
from metaformer_ablate.records.status import RunState
from metaformer_ablate.spec.merge import WHOLE_MODELS
from metaformer_ablate.spec.notes import differences
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.tasks.base import Metric
from metaformer_ablate.tasks.registry import DEFAULT, get_task

Runs = Mapping[str, Sequence[RunState]]


# What stands for other fields: a row that sets it declares those too.
_STANDS_FOR: dict[str, str | tuple[str, ...]] = {
    **dict.fromkeys((*WHOLE_MODELS, "model.size"), "model."),
    "train.epoch_factor": ("train.epochs", "train.steps", "train.milestones"),
    "train.optimizer": ("train.betas", "train.eps"),
    "train.schedule": ("train.gamma", "train.power"),
}


@dataclass(frozen=True)
class _Fact:
    """Something a record tells of its run, and the fields of the spec that explain it where they differ."""

    name: str
    of: Callable[[Record], Any]
    explained_by: tuple[str, ...] = ()
    diverged_too: bool = False  # is it told of runs that ended early, too
    newer: bool = False  # do older records lack it, in whose specs there was no choice of it


_LENGTH = ("train.epochs", "train.cooldown_epochs", "train.steps")


_EPOCH = ("train.batch_size", "data.name", "data.evaluate_on")


_FACTS = (
    _Fact("epochs", lambda record: record.data.get("epochs"), (*_LENGTH, *_EPOCH)),
    _Fact("images seen", lambda record: record.data.get("images_seen"), (*_LENGTH, *_EPOCH)),
    _Fact("data fingerprint", lambda record: record.data["data_fingerprint"], ("data.name",)),
    _Fact("device", lambda record: record.data.get("device"), diverged_too=True),
    # What `auto` came to, which depends on the device.
    _Fact("precision", lambda record: record.data.get("precision"), ("train.precision",), True, newer=True),
    _Fact("compiled", lambda record: record.data.get("compiled"), ("train.compile",), True, newer=True),
    _Fact("kernels", lambda record: record.data.get("kernels"), ("train.kernels",), True, newer=True),
    _Fact("CPU instructions", lambda record: (record.data.get("cpu") or {}).get("instructions"), (), True, newer=True),
    _Fact("code commit", lambda record: _short((record.data.get("git") or {}).get("commit")), diverged_too=True),
)


def audit(plan: Plan, runs: Runs, metric: Metric) -> tuple[Finding, ...]:
    """Numbered findings, each with the rows it holds for. Empty where all is fair.

    `runs` has the state of every run of a table by row and by combination of two. Stale and failed runs are in no
    number of a table, so only their absence is looked at.
    """
    facts = (*_FACTS, *_versions(runs))
    told = {row: {fact.name: _values(states, fact) for fact in facts} for row, states in runs.items()}
    found: dict[str, list[str]] = {}
    for row, _ in plan.everything():
        for text in _findings(plan, runs, row, facts, told, metric):
            found.setdefault(text, []).append(row)
    return tuple(Finding(i, text, tuple(rows)) for i, (text, rows) in enumerate(found.items(), 1))


def _findings(
    plan: Plan,
    runs: Runs,
    row: str,
    facts: Sequence[_Fact],
    told: Mapping[str, Mapping[str, list[str]]],
    metric: Metric,
) -> Iterator[str]:
    base = plan.experiment.baseline
    changed: set[str] = set()
    if row != base and base in plan.specs:
        different = differences(dict(plan.everything())[row], plan.specs[base])
        changed = {path for path, _, _ in different}
        rows = {**plan.experiment.rows, **{each.row.name: each.row for each in plan.combinations}}
        declared = {path for name in (row, base) for path in rows[name].sets(plan.recipe.name)}
        for path, here, there in different:
            if not _follows(path, here, there, declared):
                yield f"{path} is {here}, the baseline's {there}, and the row does not set it"
    planned = {state.seed for state in runs[row]}  # fewer than the baseline's where its own spread decided
    if row != base and _seeds(runs[row]) != [seed for seed in _seeds(runs[base]) if seed in planned]:
        yield f"{_counted(runs[row])}; of the baseline {_counted(runs[base])}"
    for fact in facts:
        if changed.intersection(fact.explained_by):
            continue
        here, there = (told[name][fact.name] for name in (row, base))
        if len(here) > 1:
            yield f"{fact.name} differs between runs of one row: {_listed(here)}"
        elif row != base and here and there and here != there:
            yield f"{fact.name}: {_listed(here)}; of the baseline: {_listed(there)}"
    yield from _remarked(_told(runs[row], diverged_too=True))
    early = [seed for seed, record in _told(runs[row]) if not _of_last_epoch(record, metric)]
    if early:
        yield f"{metric.phrase} is not that of the last epoch in its history: seed {', '.join(map(str, early))}"


def _remarked(told: Sequence[tuple[int, Record]]) -> Iterator[str]:
    """What the records themselves say: an uncommitted checkout, images that were not read or read with a remark."""
    if any((record.data.get("git") or {}).get("dirty") for _, record in told):
        yield "trained from a checkout with uncommitted changes: its commit does not say what ran"
    earlier = [(seed, record.data["earlier_code"]) for seed, record in told if record.data.get("earlier_code")]
    for seed, code in earlier:
        names = [_short(each.get("commit")) or "an unknown commit" for each in code]
        commits = ", ".join(
            f"{name}{' with changes' * bool(each.get('dirty'))}" for name, each in zip(names, code, strict=True)
        )
        yield f"seed {seed} was trained in part at {commits}, and resumed at another commit"
    unread = {get_task(record.data.get("task", DEFAULT)).unread_evaluated for _, record in told}
    for split, note in (("train", "others stood in for them"), ("evaluation", ", ".join(unread))):
        if bad := [(seed, n) for seed, record in told if (n := _unreadable(record, split))]:
            yield f"{split} images could not be read, {note}: " + ", ".join(f"{n} (seed {seed})" for seed, n in bad)
    for kind, what in REMARKS.items():
        for split in ("train", "evaluation"):
            if found := [(seed, n) for seed, record in told if (n := _remarks(record, kind, split))]:
                yield f"{split} images {what}: " + ", ".join(f"{n} (seed {seed})" for seed, n in found)


def _follows(path: str, here: Any, there: Any, declared: set[str]) -> bool:
    """Whether a difference is declared or a consequence of what is."""
    for name in declared:
        if path == name or path.startswith(f"{name}.") or path.startswith(_STANDS_FOR.get(name, "\0")):
            return True
    if isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        return all(a == b or a is None or b is None for a, b in zip(here, there, strict=True))
    return here is None or there is None  # read by one of the two models only


def _told(states: Sequence[RunState], diverged_too: bool = False) -> list[tuple[int, Record]]:
    """(seed, record) of the runs that ended ok, or also of those that diverged."""
    statuses = ("ok", "diverged") if diverged_too else ("ok",)
    return [(s.seed, s.record) for s in states if s.status in statuses and s.record is not None]


def _values(states: Sequence[RunState], fact: _Fact) -> list[str]:
    """What the runs tell, each value once, sorted."""
    told = (fact.of(record) for _, record in _told(states, fact.diverged_too))
    known = (value for value in told if value is not None or not fact.newer)
    return sorted({"unknown" if value is None else str(value) for value in known})


def _versions(runs: Runs) -> list[_Fact]:
    """The version of each package that any run names, as a fact."""
    records = [record for states in runs.values() for _, record in _told(states, diverged_too=True)]
    packages = sorted({package for record in records for package in record.data.get("versions") or ()})

    def version(package: str) -> _Fact:
        return _Fact(
            f"{package} version",
            lambda record: (record.data.get("versions") or {}).get(package),
            diverged_too=True,
            newer=package in LATER_PACKAGES,
        )

    return [version(package) for package in packages]


def _seeds(states: Sequence[RunState]) -> list[int]:
    return [state.seed for state in states if state.status == "ok"]


def _counted(states: Sequence[RunState]) -> str:
    """`2 of 3 runs count (1 diverged: seed 2)`."""
    counts: dict[str, list[str]] = {}
    for state in states:
        if state.status != "ok":
            counts.setdefault(state.status, []).append(str(state.seed))
    rest = "; ".join(f"{len(seeds)} {status}: seed {', '.join(seeds)}" for status, seeds in counts.items())
    return f"{len(_seeds(states))} of {len(states)} runs count" + (f" ({rest})" if rest else "")


def _of_last_epoch(record: Record, metric: Metric) -> bool:
    """Whether the record's value is the one in the last line of its history, and that line of the last epoch."""
    try:
        with open(f"{record.folder}/history.csv", encoding="utf-8") as stream:
            names, *lines = stream.read().split()
        last = dict(zip(names.split(","), map(float, lines[-1].split(",")), strict=True))
    except (OSError, ValueError, IndexError):
        return False
    value, column = record.value(metric.name), f"val_{metric.name}"
    if value is None or column not in last:  # a metric that is measured at the end alone
        return True
    return last.get("epoch") == record.data.get("epochs", last.get("epoch")) and abs(last[column] - value) < 1e-6


def _unreadable(record: Record, split: str) -> int:
    """How many images of a split the run could not read."""
    return ((record.data.get("unreadable") or {}).get(split) or {}).get("images", 0)


def _remarks(record: Record, kind: str, split: str) -> int:
    """How many images of a split were read with a remark of a kind."""
    return (((record.data.get("remarks") or {}).get(kind) or {}).get(split) or {}).get("images", 0)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values)


def _short(commit: str | None) -> str | None:
    return commit and commit[:10]
