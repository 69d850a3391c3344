"""Planned runs as they stand."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.experiment import find_all
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.spec.plan import plan as plan_of
from metaformer_ablate.spec.run_spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

    from metaformer_ablate.data.folder import DataFolder

# Without --seeds, records of these seeds are found; others have to be asked for.
SEEDS_LOOKED_UP = 10_000


FIRST_SEEDS = 10  # by which a recipe with records is told from others


@dataclass(frozen=True)
class RunState:
    """A planned run as it stands: missing, running, ok, diverged, failed or stale."""

    run_id: str
    seed: int
    status: str
    record: Record | None
    pace: float | None = None  # seconds per image and multiply-add, where `plan_jobs` left the record out

    def value(self, metric: str) -> float | None:
        """A metric of the run's record by name; None unless the run is ok."""
        return self.record.value(metric) if self.record is not None and self.status == "ok" else None


def run_states(
    spec: RunSpec, seeds: Iterable[int], store: Store, fingerprint: str | None, held: Container[str] = ()
) -> list[RunState]:
    """Looks a row's runs up, one per seed. A record of other data than today's is stale: shown, not reused.

    `held` are the runs that somebody trains (`Claims.held`). Costs a hash per seed and not a resolved spec.
    """
    seeds = list(seeds)
    ids = zip(spec.ids(seeds), seeds, strict=True)
    return [look_up(run_id, seed, store, fingerprint, held) for run_id, seed in ids]


def look_up(run_id: str, seed: int, store: Store, fingerprint: str | None, held: Container[str] = ()) -> RunState:
    """One run as it stands, as `run_states` does."""
    record = store.read(run_id)
    status = record.status if record is not None else "running" if run_id in held else "missing"
    if record is not None and fingerprint and record.data["data_fingerprint"] not in (None, fingerprint):
        status = "stale"
    return RunState(run_id, seed, status, record)


def seeds_with_records(plan: Plan, store: Store) -> tuple[int, ...]:
    """The seeds below SEEDS_LOOKED_UP that any row of a plan has a run folder for; seed 0 where there is none."""
    ids = set(store.ids())
    found: set[int] = set()
    for spec in plan.specs.values() if ids else ():
        found |= {seed for seed, run_id in enumerate(spec.ids(range(SEEDS_LOOKED_UP))) if run_id in ids}
    return tuple(sorted(found)) or (0,)


def stray_seeds(runs: Mapping[str, Sequence[RunState]]) -> str | None:
    """A sentence where some seeds have runs of some rows alone, as one `ablate trial` leaves them behind, while other
    seeds have one of every row; `runs` are those of each row, for seeds that nobody asked for by --seeds."""
    rows: dict[int, list[str]] = {}
    for row, states in runs.items():
        for state in states:
            rows.setdefault(state.seed, []).extend([] if state.status == "missing" else [row])
    applicable = sum(bool(states) for states in runs.values())
    whole = sorted(seed for seed, there in rows.items() if len(there) == applicable)
    stray = sorted(rows.keys() - {*whole})
    if not whole or not stray:
        return None
    there = list(dict.fromkeys(row for seed in stray for row in rows[seed]))
    named = ", ".join(there) if len(there) <= 3 else f"{len(there)} of {applicable} rows"
    seeds = ", ".join(map(str, stray))
    seeds = f"seeds {seeds} have" if len(stray) > 1 else f"seed {seeds} has"
    return f"{seeds} runs of {named} only, so other rows are partial; --seeds {as_option(whole)} leaves them out"


def as_option(seeds: Sequence[int]) -> str:
    """Seeds as --seeds takes them: `3` for 0, 1 and 2, else a list."""
    if list(seeds) == list(range(len(seeds))):
        return str(len(seeds))
    return ",".join(map(str, seeds)) + ("," if len(seeds) == 1 else "")


def nothing_there(plan: Plan, store: Store, seeds: Sequence[int] | None = None) -> str:
    """Why there is nothing to show of a plan, and what there is."""
    called = f"{plan.experiment.name} under {' '.join([plan.recipe.name, *plan.overrides])}"
    if not store.ids():
        return f"there are no runs in {store.path}; `ablate run {plan.experiment.name}` trains those of {called}"
    unfinished = f"no run of {called} has a result yet; `ablate status` tells how far they are"
    return no_records_hint(plan, store, seeds) or unfinished


def no_records_hint(plan: Plan, store: Store, seeds: Sequence[int] | None = None) -> str | None:
    """A hint where there are runs and none of them is of a plan: easily its recipe or overrides were left out."""
    ids = set(store.ids())
    chosen = seeds if seeds is not None else seeds_with_records(plan, store)
    if not ids or any(spec.with_seed(seed).run_id in ids for spec in plan.specs.values() for seed in chosen):
        return None
    settings = " ".join([plan.recipe.name, *plan.overrides])
    none = f"none of the {len(ids)} runs in {store.path} is of {plan.experiment.name} under {settings}"
    others = _recipes_with_records(plan, ids)
    if plan.recipe.name in others:
        return f"{none}; there are runs of it {'without these overrides' if plan.overrides else 'with other seeds'}"
    if others:
        return f"{none}; there are runs under {', '.join(others)} (--recipe)"
    return f"{none}; give the recipe, overrides and seeds that `ablate run` was given"


def _recipes_with_records(plan: Plan, ids: Container[str]) -> list[str]:
    """The recipes under which an experiment has runs of its first seeds, without overrides."""
    found = []
    for recipe in find_all("recipe"):
        try:
            other = plan_of(plan.experiment.name, recipe)
        except RequestError:  # a recipe under work, or one that the experiment cannot have
            continue
        if any(run_id in ids for spec in other.specs.values() for run_id in spec.ids(range(FIRST_SEEDS))):
            found.append(recipe)
    return found


def of_same_data(plan: Plan, store: Store, apart: Container[str]) -> tuple[list[Record], list[Record]]:
    """Records of the same data but for those set apart: on the held-out training images, and all others."""
    names = {spec.data.name for spec in plan.specs.values()}
    tuning: list[Record] = []
    others: list[Record] = []
    for record in store:
        if record.run_id in apart:
            continue
        try:
            data = record.spec()["data"]
        except RequestError:
            continue  # it is no run whose data are known
        if data.get("name") in names:
            (tuning if data.get("evaluate_on") == "holdout" else others).append(record)
    return tuning, others


def as_dict(state: RunState) -> dict[str, Any]:
    return {"run_id": state.run_id, "seed": state.seed, "status": state.status}


def frame_of_plan(plan: Plan, store: Store, folder: DataFolder) -> pd.DataFrame:
    """`Store.frame` of the runs of a plan, in the order of its table, with the columns row, label and group first."""
    seeds = seeds_with_records(plan, store)
    found = [
        (plan.experiment.rows[row], state, state.record)
        for row, spec in plan.specs.items()
        for state in run_states(spec, seeds, store, folder.fingerprint(spec.data.name, spec.data.reader))
        if state.record is not None
    ]
    frame = store.frame(record for _, _, record in found)
    frame["status"] = [state.status for _, state, _ in found]
    frame.insert(0, "row", [row.name for row, _, _ in found])
    frame.insert(1, "label", [row.label for row, _, _ in found])
    frame.insert(2, "group", [row.group for row, _, _ in found])
    return frame
