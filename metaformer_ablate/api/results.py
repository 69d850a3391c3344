"""Records as a pandas frame."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from metaformer_ablate.api.experiment import load_experiment
from metaformer_ablate.api.overrides import Overrides
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store

if TYPE_CHECKING:
    import pandas as pd


def load_results(
    path: str | Path = "results", experiment: str | None = None, recipe: str = "digits", overrides: Overrides = ()
) -> pd.DataFrame:
    """The records of a results folder as a tidy frame, one line per run. Trains nothing and loads no torch.

    Columns: `run_id`, `status` (ok, diverged or failed), the metrics of the task by name (accuracies in percent, at the
    last epoch, on the evaluation split), `at_chance`, `params`, `frozen_params`, `macs` (of one image at the run's
    resolution), `macs_224`, `epochs`, `images_seen`, `seconds`, `peak_memory_bytes`, `device`, `started`,
    `data_fingerprint`, `torch`, `commit`, `dirty`, `seed`, and each field of the resolved spec by its dotted path, such
    as `model.pool_size` (a list with an entry per stage) and `data.name`. What a run that did not end well lacks is
    missing, never 0.

    Args:
        path: the results folder.
        experiment: only the runs of this experiment under `recipe` with `overrides`, as `load_experiment` takes them:
            with the columns `row`, `label` and `group` before the others, in the order of its table; a run that two
            rows show stands there for both. `status` may then also be stale: of other data than today's, not to be
            averaged.

    Raises RequestError where there is no such folder or experiment. A folder in it that is no whole record is left out
    with a warning.
    """
    if not Path(path).is_dir():
        raise RequestError(f"results folder {str(path)!r}: no such folder; `ablate run` makes one")
    if experiment is not None:
        return load_experiment(experiment, recipe, overrides, results=path).results()
    store = Store(Path(path))
    frame = store.frame()
    for problem in store.problems.values():
        warnings.warn(problem, stacklevel=2)
    return frame
