"""Planned runs as they stand."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import Plan
from metaformer_ablate.spec.run_spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

    from metaformer_ablate.data.folder import DataFolder

# Without --seeds, records of these seeds are found; others have to be asked for.
SEEDS_LOOKED_UP = 10_000


@dataclass(frozen=True)
class RunState:
    """A planned run as it stands: missing, running, ok, diverged, failed or stale."""

    run_id: str
    seed: int
    status: str
    record: Record | None
    pace: float | None = None  # seconds an image and multiply-add, where `plan_jobs` left the record out

    def value(self, metric: str) -> float | None:
        """A metric of the run's record by name; None unless the run is ok."""
        return self.record.value(metric) if self.record is not None and self.status == "ok" else None


def run_states(
    spec: RunSpec, seeds: Iterable[int], store: Store, fingerprint: str | None, held: Container[str] = ()
) -> list[RunState]:
    """Looks a row's runs up, one a seed. A record of other data than today's is stale: shown, not reused.

    `held` are the runs that somebody trains (`Claims.held`). Costs a hash a seed and not a resolved spec.
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


def no_records_hint(plan: Plan, store: Store, seeds: Sequence[int] | None = None) -> str | None:
    """A hint where there are runs and none of them is of a plan: easily its recipe or overrides were left out."""
    ids = set(store.ids())
    chosen = seeds if seeds is not None else seeds_with_records(plan, store)
    if not ids or any(spec.with_seed(seed).run_id in ids for spec in plan.specs.values() for seed in chosen):
        return None
    settings = " ".join([plan.recipe.name, *plan.overrides])
    return (
        f"none of the {len(ids)} runs in {store.path} is of {plan.experiment.name} under {settings}; "
        f"give the recipe, overrides and seeds that `ablate run` was given"
    )


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
