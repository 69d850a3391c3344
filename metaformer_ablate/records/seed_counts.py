"""How many seeds each row gets, as the spread of its first ones decided: `<results>/until/EXPERIMENT.RECIPE.yaml`.

Written by `ablate run --until` once the first seeds of all rows have ended, and read by every table of the same runs.
"""

from __future__ import annotations

from pathlib import Path

from metaformer_ablate.records.store import Store
from metaformer_ablate.records.study_files import StudyFile, read_study_file, write_study_file
from metaformer_ablate.spec.plan import Plan

_COMMENT = """\
Written by `ablate run --until`, not by hand: how many seeds each row gets, by the spread of its first ones alone.
`ablate table` takes its intervals from it (docs/claims.md). Commit it with the records of its runs."""


class SeedCounts(StudyFile):
    """The file: half of the interval of the difference that is asked for, in the metric's difference unit, the first
    seeds, the most, and the seeds of each row, the baseline's being as many as any row's."""

    experiment: str
    recipe: str
    overrides: list[str]
    decided: str
    metric: str
    until: float
    first: int
    max_seeds: int
    seeds: dict[str, int]
    runs: dict[str, str]  # the id of seed 0 of each row

    def is_of(self, plan: Plan) -> bool:
        """Whether the plan of today has the runs that it was decided by."""
        return self.runs == {row: spec.run_id for row, spec in plan.everything()}


def path_of(plan: Plan, store: Store) -> Path:
    tuned = ".tuned" if plan.choices else ""
    return store.path / "until" / f"{plan.key}{tuned}.yaml"


def read_seed_counts(plan: Plan, store: Store) -> SeedCounts | None:
    """Those of a plan, None where it has none. Raises RequestError for a file that does not hold them."""
    return read_study_file(path_of(plan, store), SeedCounts)


def write_seed_counts(path: Path, counts: SeedCounts) -> None:
    write_study_file(path, counts, _COMMENT)
