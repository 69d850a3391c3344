"""An experiment under a recipe: what it would train, what it has, its table and its figures."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from metaformer_ablate.analysis.figures.data import FigureData
from metaformer_ablate.analysis.figures.kinds import KINDS, applicable, draw, figure_data
from metaformer_ablate.analysis.figures.look import PAGE, Look
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.tuning import build_tuned_table
from metaformer_ablate.analysis.tables.types import Table
from metaformer_ablate.api.overrides import Overrides, override_layer
from metaformer_ablate.api.table import ResultTable, check_points
from metaformer_ablate.cost.cost import count
from metaformer_ablate.cost.counting import Cost
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.records.status import RunState, frame_of_plan, run_states, seeds_with_records
from metaformer_ablate.records.store import Store
from metaformer_ablate.records.tuning import Tuning, tuned_plan
from metaformer_ablate.spec.experiment import forget_files
from metaformer_ablate.spec.plan import Plan, parse_seeds, plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import nn

    from metaformer_ablate.api.lightning import RecipeData
    from metaformer_ablate.tasks.module import TaskModule

Seeds: TypeAlias = int | Sequence[int]


def load_experiment(
    name: str,
    recipe: str = "digits",
    overrides: Overrides = (),
    *,
    results: str | Path | None = None,
    data: str | Path | None = None,
) -> Experiment:
    """An experiment (one ablation table) under a recipe. Loads no torch, trains nothing and needs no data.

    Args:
        name: of an experiment (`ablate list`), or the path of a `.yaml` file. Names are looked up in ./experiments
            first.
        recipe: where it is measured: data, model size, training. A name or a path, as above.
        overrides: settings for every row, the baseline too: `{"train.epochs": 2}`, nested or dotted, or words as on
            the command line, `["train.epochs=2"]`.
        results: the folder of records; by default $ABLATE_RESULTS, else `results`.
        data: the folder of data sets; by default $ABLATE_DATA, else a folder in the user's cache, which is downloaded
            into.

    Raises RequestError (a ValueError) in one sentence for whatever is unknown, of a wrong type or contradictory.
    """
    forget_files()
    chosen = plan(name, recipe, override_layer(overrides) if isinstance(overrides, Mapping) else list(overrides))
    store = Store.choose(None if results is None else str(results), called="results")
    return Experiment(chosen, store, DataFolder.choose(None if data is None else str(data), called="data"))


def seeds_of(seeds: Seeds | None) -> tuple[int, ...] | None:
    """3 means seeds 0, 1, 2; a sequence means those. Raises RequestError for what is no seed."""
    if seeds is None:
        return None
    words = [str(seeds)] if isinstance(seeds, (int, str)) else [*map(str, seeds), ""]
    return parse_seeds(",".join(words))


@dataclass(frozen=True)
class Trials:
    """What an experiment at its rows' own best values was tuned with: the plan of one value for all, and the trials."""

    same: Plan
    tuning: Tuning


class Experiment:
    """An experiment under a recipe with overrides, over a results folder.

    `plan` has the resolved spec of every row, `store` the records, `data` the folder of data sets.
    """

    def __init__(self, chosen: Plan, store: Store, data: DataFolder, trials: Trials | None = None):
        self.plan, self.store, self.data, self.trials = chosen, store, data, trials

    def tuned(self) -> Experiment:
        """The same experiment with each row at its own best value, as `ablate tune` chose it on held-out images.

        Raises RequestError where nothing was chosen, and where the trials are of other runs than today's.
        """
        chosen, tuning = tuned_plan(self.plan, self.store)
        return Experiment(chosen, self.store, self.data, Trials(self.plan, tuning))

    @property
    def name(self) -> str:
        return self.plan.experiment.name

    @property
    def recipe(self) -> str:
        return self.plan.recipe.name

    @property
    def baseline(self) -> str:
        """The row that differences are from."""
        return self.plan.experiment.baseline

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of the rows, in the order of the table."""
        return tuple(self.plan.experiment.rows)

    def spec(self, row: str | None = None, seed: int = 0) -> RunSpec:
        """The resolved spec of a run: of a row by name, or of the baseline. `spec.run_id` names its record.

        Raises RequestError for an unknown row, and for one that makes no sense under the recipe.
        """
        name = self.baseline if row is None else row
        if name not in self.plan.experiment.rows:
            raise RequestError(f"{self.plan.experiment.source}: {unknown('row', name, self.rows)}")
        if name in self.plan.not_applicable:
            raise RequestError(f"row {name!r} under {self.recipe}: {self.plan.not_applicable[name]}")
        return self.plan.spec(name, seed)

    def states(self, seeds: Seeds | None = None) -> dict[str, list[RunState]]:
        """The runs of each row, one per seed: `run_id`, `seed`, `status` (missing, running, ok, diverged, failed or
        stale) and `record`. By default of all seeds that have a record."""
        wanted = seeds_of(seeds) or seeds_with_records(self.plan, self.store)
        return {row: self._states(spec, wanted) for row, spec in self.plan.specs.items()}

    def _states(self, spec: RunSpec, seeds: Sequence[int]) -> list[RunState]:
        return run_states(spec, seeds, self.store, self.data.fingerprint(spec.data.name, spec.data.reader))

    def counts(self) -> dict[str, Cost]:
        """What each row costs for one image of the recipe: {row: parameters, multiply-adds, ...} (`Cost`)."""
        return {row: count(spec) for row, spec in self.plan.specs.items()}

    def run(
        self,
        seeds: Seeds = 1,
        *,
        device: str = "auto",
        workers: int | None = None,
        retry_failed: bool = False,
        max_hours: float | None = None,
        keep_checkpoints: bool = False,
        progress: bool = True,
    ) -> Experiment:
        """Trains the runs that have no record yet, with a progress bar in a notebook or on a terminal.

        Interrupted, it raises KeyboardInterrupt; the same call then goes on from the last checkpoints. Runs that failed
        or are left over are warned of; the table names them.

        Args:
            seeds: 3 means seeds 0, 1, 2; or a list of seeds.
            device: auto, cpu, cuda or cuda:N.
            workers: runs at once, each in a process of its own; 0 trains in this one. By default $ABLATE_WORKERS, else
                as many as the GPUs or the cores allow.
            retry_failed: train failed runs again; diverged ones are results.
            max_hours: begin no run after so many hours.
            keep_checkpoints: leave each run's weights beside its record.
            progress: show how far it is.

        Returns this experiment. Raises RequestError where data cannot be had or a run cannot be carried out here.
        """
        from metaformer_ablate.api.execution import Execution, check_hours, read_workers
        from metaformer_ablate.api.training import describe_ending, train_missing, view

        check_hours(max_hours, "max_hours")
        wanted = seeds_of(seeds) or (0,)
        given = os.environ.get("ABLATE_WORKERS") if workers is None else str(workers)
        execution = Execution(workers=read_workers(given, "workers"), keep_checkpoints=keep_checkpoints)
        how: dict[str, Any] = {"device": device, "retry_failed": retry_failed, "max_hours": max_hours}
        try:
            ended = train_missing([self.plan], wanted, self.store, self.data, execution, view(progress), **how)
        except Interrupted as stop:
            raise KeyboardInterrupt(stop.advice) from None
        failed = [
            describe_ending(state.run_id, f"{row} seed {state.seed}", state.status, self.store, "retry_failed=True")
            for row, spec in self.plan.everything()
            for state in self._states(spec, wanted)
            if state.status == "failed"
        ]
        for warning in [ended.why, *failed]:
            if warning:
                warnings.warn(warning, stacklevel=2)
        return self

    def table(
        self,
        metric: str | None = None,
        *,
        seeds: Seeds | None = None,
        images: bool = False,
        power: float | None = None,
        equivalent: float | None = None,
    ) -> ResultTable:
        """The table from records alone: means over seeds, paired differences from the baseline, tests, audit.

        Args:
            metric: of the task, by name; by default the one that it reports.
            seeds: those to show; by default all that have a record.
            images: also test whether the trained models differ on these images (McNemar, sign flips).
            power: also say how many seeds would find a difference of so many points, above 0 and at most 100.
            equivalent: also say which rows are shown to be within so many points of the baseline.

        Raises RequestError for an unknown metric.
        """
        check_points("power", power)
        check_points("equivalent", equivalent)
        wanted = seeds_of(seeds)
        asked = {"images": images, "power": power, "metric": metric, "equivalent": equivalent}
        return ResultTable.of(self._table(wanted, **asked))

    def _table(self, seeds: Sequence[int] | None, **asked: Any) -> Table:
        if self.trials is None:
            return build_table(self.plan, self.store, self.data, seeds, **asked)
        plans = (self.trials.same, self.plan)
        return build_tuned_table(plans, self.trials.tuning, self.store, self.data, seeds, **asked)

    def figure_data(
        self,
        kinds: Sequence[str] | None = None,
        *,
        seeds: Seeds | None = None,
        metric: str | None = None,
        **options: str,
    ) -> dict[str, FigureData]:
        """Exactly the numbers of figures by kind, by default of all kinds that the experiment has; `to_json()` of each
        gives plain values. Arguments as of `plot`; an option goes to the kinds that read it."""
        table = build_table(self.plan, self.store, self.data, seeds_of(seeds), metric=metric, spread=False)
        return {
            kind: figure_data(kind, table, **{key: options[key] for key in options if key in KINDS[kind].options})
            for kind in applicable(kinds, table)
        }

    def plot(
        self,
        kind: str = "rows",
        *,
        seeds: Seeds | None = None,
        metric: str | None = None,
        look: Look = PAGE,
        **options: str,
    ) -> Figure:
        """A matplotlib figure from records alone, in the style of the package; a notebook shows it.

        Args:
            kind: rows (means and paired differences, with intervals), curves (the course of training), cost (the metric
                against multiply-adds), paper (our differences against the printed ones) or seeds (every run).
            seeds: as of `table`.
            metric: as of `table`.
            look: width, font size and words, such as `Look(width=3.3)` for a column.
            options: of cost `x`: macs, params or images_per_second; of curves `y`: a column of history.csv.

        Raises RequestError for an unknown kind, option or metric.
        """
        table = build_table(self.plan, self.store, self.data, seeds_of(seeds), metric=metric, spread=False)
        applicable([kind], table)
        return draw(figure_data(kind, table, **options), look)

    def results(self) -> pd.DataFrame:
        """One line per run that has a record, row by row (`load_results` says which columns)."""
        frame = frame_of_plan(self.plan, self.store, self.data)
        for problem in self.store.problems.values():
            warnings.warn(problem, stacklevel=3)
        return frame

    def lightning(
        self, row: str | None = None, *, seed: int = 0, net: nn.Module | None = None, device: str = "auto"
    ) -> tuple[TaskModule, RecipeData]:
        """The LightningModule and the LightningDataModule of a run, for a Trainer of one's own (`lightning`)."""
        from metaformer_ablate.api.lightning import pair

        return pair(self.spec(row, seed), self.data, device, net)

    def __repr__(self) -> str:
        done = sum(state.record is not None for states in self.states().values() for state in states)
        words = "".join(f" {word}" for word in self.plan.overrides)
        here = f"{len(self.rows)} rows, {done} runs with a record in {self.store.path}"
        return f"{self.name} under {self.recipe}{words}: {here}"
