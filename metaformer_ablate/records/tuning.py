"""What trials chose for each row: the same grid for all, measured on held-out training images, never on the test split.

The choice lies in `<results>/tuned/EXPERIMENT.RECIPE.yaml`, with its trials, and is committed as records are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.status import RunState
from metaformer_ablate.records.store import Store
from metaformer_ablate.records.study_files import StudyFile, read_study_file, write_study_file
from metaformer_ablate.spec.grid import edges, points
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.spec.words import as_words
from metaformer_ablate.system.clock import now
from metaformer_ablate.tasks.base import Metric

HELD_OUT = ("data.evaluate_on=holdout",)

_COMMENT = """\
Written by `ablate tune`, not by hand: what each row was tried with on held-out training images, and what was best.
`--tuned` of table, run, plot and compare uses it. Commit it with the records of its runs."""


class Trial(StudyFile):
    """One point of the grid: its runs in the order of the seeds, what they came to, and the mean. A value and the mean
    are null where a run diverged."""

    set: dict[str, Any]
    runs: list[str]
    values: list[float | None]
    mean: float | None


class TunedRow(StudyFile):
    """A row's choice, the settings of it that lie at the edge of the grid, and all its trials."""

    set: dict[str, Any]
    edges: list[str]
    trials: list[Trial]


class Tuning(StudyFile):
    """The file. `over` is the grid, `seeds` those of each trial."""

    experiment: str
    recipe: str
    overrides: list[str]
    tuned: str
    metric: str
    seeds: list[int]
    over: dict[str, list[Any]]
    rows: dict[str, TunedRow]

    @property
    def choices(self) -> dict[str, dict[str, Any]]:
        return {name: row.set for name, row in self.rows.items()}


def path_of(plan: Plan, store: Store) -> Path:
    return store.path / "tuned" / f"{plan.key}.yaml"


def trial_plans(base: Plan, grid: Mapping[str, Sequence[Any]]) -> list[tuple[dict[str, Any], Plan]]:
    """Every point of a grid and the plan of its trials.

    Raises RequestError where the trials would undo what an override or a row sets.
    """
    for key in grid:
        if any(word.partition("=")[0] == key for word in base.overrides):
            raise RequestError(f"--over: {key} is also an override; allowed: one of the two")
        for name, row in base.experiment.rows.items():
            if key in row.sets(base.recipe.name):
                raise RequestError(f"--over: row {name!r} sets {key} itself; allowed: what no row sets")
    found = []
    for point in points({key: list(values) for key, values in grid.items()}):
        words = [*base.overrides, *HELD_OUT, *as_words(point)]
        found.append((point, plan(base.experiment, base.recipe, words)))
    return found


def choose(
    base: Plan,
    metric: Metric,
    seeds: Sequence[int],
    grid: Mapping[str, Sequence[Any]],
    states: Sequence[tuple[dict[str, Any], Mapping[str, Sequence[RunState]]]],
) -> Tuning:
    """The best trial of each row by its mean over the seeds; of equal ones the first.

    `states` has each point of the grid and its runs by row. Raises RequestError for a row all of whose trials diverged.
    """
    rows: dict[str, TunedRow] = {}
    for name, _ in base.everything():
        trials = [_trial(point, runs[name], metric) for point, runs in states]
        ended = [trial for trial in trials if trial.mean is not None]
        if not ended:
            raise RequestError(f"tune: every trial of row {name!r} diverged; give --over other values")
        best = max(ended, key=lambda trial: metric.sign * (trial.mean or 0.0))
        grid_lists = {key: list(values) for key, values in grid.items()}
        rows[name] = TunedRow(set=best.set, edges=edges(grid_lists, best.set), trials=trials)
    return Tuning(
        experiment=base.experiment.name,
        recipe=base.recipe.name,
        overrides=list(base.overrides),
        tuned=now(),
        metric=metric.name,
        seeds=list(seeds),
        over={key: list(values) for key, values in grid.items()},
        rows=rows,
    )


def _trial(point: dict[str, Any], runs: Sequence[RunState], metric: Metric) -> Trial:
    values = [run.value(metric.name) for run in runs]
    known = [value for value in values if value is not None]
    mean = fmean(known) if len(known) == len(values) else None
    return Trial(set=point, runs=[run.run_id for run in runs], values=values, mean=mean)


def write_tuning(path: Path, tuning: Tuning) -> None:
    write_study_file(path, tuning, _COMMENT)


def tuned_plan(base: Plan, store: Store) -> tuple[Plan, Tuning]:
    """The plan with each row at its own best value, and the trials behind it.

    Raises RequestError where nothing was chosen, and where the trials are of other runs than the plan's would be today.
    """
    path = path_of(base, store)
    tuning = read_study_file(path, Tuning)
    if tuning is None:
        words = " ".join([base.experiment.name, "--recipe", base.recipe.name, *base.overrides])
        raise RequestError(f"--tuned: there is no {path}; `ablate tune {words} --over KEY=A,B,C` chooses and writes it")
    _check_of_today(path, tuning, base)
    return plan(base.experiment, base.recipe, list(base.overrides), choices=tuning.choices), tuning


def _check_of_today(path: Path, tuning: Tuning, base: Plan) -> None:
    """Raises RequestError unless the runs of every trial are those that the experiment and the recipe make today."""
    names = {name for name, _ in base.everything()}
    if other := sorted(names ^ tuning.rows.keys()):
        raise RequestError(f"{path}: was chosen for other rows than {base.experiment.name} has: {', '.join(other)}")
    wrong = set()
    for point, chosen in trial_plans(base, tuning.over):
        for name, spec in chosen.everything():
            trial = next((each for each in tuning.rows[name].trials if each.set == point), None)
            if trial is None or trial.runs != list(spec.ids(tuning.seeds)):
                wrong.add(name)
    if wrong:
        raise RequestError(
            f"{path}: the experiment or the recipe has changed since; the trials of {', '.join(sorted(wrong))} "
            f"would be other runs; `ablate tune` makes them"
        )
