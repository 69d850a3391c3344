"""A study written down before its runs: which they are, what is tested, when it ends and what is expected.

The file is `registrations/EXPERIMENT.RECIPE.yaml`, to be committed before the first run. Its digest is over all else in
it, so that a file that was edited afterwards does not pass for the one that was written. A plan that changes is
registered again with a reason, and keeps the list of its changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from metaformer_ablate.records.record import Record
from metaformer_ablate.records.status import of_same_data
from metaformer_ablate.records.store import Store
from metaformer_ablate.records.study_files import StudyFile, read_study_file, write_study_file
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.system.clock import now

FOLDER = Path("registrations")

_COMMENT = """\
Written by `ablate register`, not by hand. Commit it before the first run: the history of the repository then says when.
`ablate table` and `ablate report` say of each hypothesis what came of it, and which runs were there before."""


class Stopping(StudyFile):
    """When no further run is trained. `until`, `first` and `max_seeds` are those of `ablate run --until`; the runs of
    the registration are then the most that there may be."""

    rule: str
    until: float | None = None
    first: int | None = None
    max_seeds: int | None = None


class Seen(StudyFile):
    """What was there when it was written: records of its own runs, and runs of the same data with other settings."""

    runs: list[str]
    other_runs: int
    on_held_out_images: int


class Change(StudyFile):
    """A plan that was given up: when it was registered, its digest, why and in what the next one differs, and how many
    of its runs had a record by then."""

    registered: str
    digest: str
    until: str  # when the next one was registered
    reason: str
    what: list[str]
    records: int


class Registration(StudyFile):
    """The file. `runs` has the ids of each row in the order of `seeds`, `seen` what there was at the first writing."""

    experiment: str
    recipe: str
    overrides: list[str]
    registered: str
    question: str | None
    metric: str
    baseline: str
    seeds: list[int]
    hypotheses: list[str]
    tests: list[str]
    stopping: Stopping
    seen: Seen
    changes: list[Change]
    runs: dict[str, list[str]]
    digest: str = ""

    @property
    def first_registered(self) -> str:
        return self.changes[0].registered if self.changes else self.registered

    @property
    def ids(self) -> list[str]:
        """The ids of all runs, each once."""
        return list(dict.fromkeys(run_id for row in self.runs.values() for run_id in row))

    @property
    def right_digest(self) -> str:
        """The digest of what is in the file today."""
        tree = self.tree()
        del tree["digest"]
        return digest(tree)

    def sealed(self) -> Registration:
        return self.model_copy(update={"digest": self.right_digest})

    def is_before(self, record: Record) -> bool | None:
        """Whether a run was started before the first registration; None where its record does not say when."""
        try:
            return datetime.fromisoformat(record.data.get("started") or "") < datetime.fromisoformat(
                self.first_registered
            )
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Request:
    """What a person registers beside the plan: seeds, hypotheses in words, and the rest of the text."""

    seeds: Sequence[int]
    metric: str
    hypotheses: Sequence[str]
    tests: Sequence[str]
    stopping: Stopping
    question: str | None = None


def path_of(plan: Plan) -> Path:
    return FOLDER / f"{plan.key}.yaml"


def read_registration(path: Path) -> Registration | None:
    """Raises RequestError for a file that is no registration."""
    return read_study_file(path, Registration)


def write_registration(path: Path, registration: Registration) -> None:
    write_study_file(path, registration, _COMMENT)


def make_registration(plan: Plan, request: Request, store: Store) -> Registration:
    """The registration of a plan as of now."""
    specs = dict(plan.everything())
    runs = {row: list(spec.ids(request.seeds)) for row, spec in specs.items()}
    ids = {run_id for row in runs.values() for run_id in row}
    held_out, others = of_same_data(plan, store, ids)
    there = [run_id for run_id in store.ids() if run_id in ids]
    return Registration(
        experiment=plan.experiment.name,
        recipe=plan.recipe.name,
        overrides=list(plan.overrides),
        registered=now(),
        question=request.question,
        metric=request.metric,
        baseline=plan.experiment.baseline,
        seeds=list(request.seeds),
        hypotheses=list(request.hypotheses),
        tests=list(request.tests),
        stopping=request.stopping,
        seen=Seen(runs=there, other_runs=len(others), on_held_out_images=len(held_out)),
        changes=[],
        runs=runs,
    ).sealed()


def changed(before: Registration, after: Registration, reason: str, store: Store) -> Registration:
    """The next registration of a plan: what it differs in is kept with the reason, and what was seen at first stays."""
    there = set(store.ids())
    change = Change(
        registered=before.registered,
        digest=before.digest,
        until=after.registered,
        reason=reason,
        what=differences(before, after),
        records=sum(run_id in there for run_id in before.ids),
    )
    return after.model_copy(update={"changes": [*before.changes, change], "seen": before.seen}).sealed()


def differences(before: Registration, after: Registration) -> list[str]:
    """What two registrations differ in, in words; empty where they plan the same."""
    found = []
    for name in ("question", "metric", "baseline", "seeds"):
        here, there = getattr(before, name), getattr(after, name)
        if here != there:
            found.append(f"{name}: {_said(here)} -> {_said(there)}")
    if before.stopping != after.stopping:
        found.append(f"stopping rule: {before.stopping.rule} -> {after.stopping.rule}")
    found += [f"hypothesis taken out: {text}" for text in before.hypotheses if text not in after.hypotheses]
    found += [f"hypothesis added: {text}" for text in after.hypotheses if text not in before.hypotheses]
    found += [f"row taken out: {row}" for row in before.runs if row not in after.runs]
    found += [f"row added: {row}" for row in after.runs if row not in before.runs]
    if other := rows_with_other_runs(before, after.runs, after.seeds):
        found.append(f"other runs of {', '.join(other)}: the experiment or the recipe is another one")
    return found


def rows_with_other_runs(registration: Registration, runs: dict[str, list[str]], seeds: Sequence[int]) -> list[str]:
    """The rows whose runs of the same seeds have other ids than those registered."""
    found = []
    for row in registration.runs.keys() & runs.keys():
        registered = dict(zip(registration.seeds, registration.runs[row], strict=False))
        now = dict(zip(seeds, runs[row], strict=False))
        if any(now[seed] != registered[seed] for seed in now.keys() & registered.keys()):
            found.append(row)
    return [row for row in registration.runs if row in found]


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) if value else "none"
