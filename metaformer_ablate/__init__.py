"""Ablations of MetaFormer (Yu et al., CVPR 2022): which part of the model matters?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"
__all__ = ["load_results"]


def load_results(
    path: str | Path = "results",
    experiment: str | None = None,
    recipe: str = "digits",
    overrides: Sequence[str] = (),
) -> pd.DataFrame:
    """The records of a results folder as a tidy frame, one line a run. Trains nothing and loads no torch.

    Columns: `run_id`, `status` (ok, diverged or failed), the metrics of the task by name (accuracies in percent, at the
    last epoch, on the evaluation split), `at_chance`, `params`, `frozen_params`, `macs` (of one image at the run's
    resolution), `macs_224`, `epochs`, `images_seen`, `seconds`, `peak_memory_bytes`, `device`, `started`,
    `data_fingerprint`, `torch`, `commit`, `dirty`, `seed`, and each field of the resolved spec by its dotted path, such
    as `model.pool_size` (a list with an entry per stage) and `data.name`. What a run that did not end well lacks is
    missing, never 0.

    Args:
        path: the results folder.
        experiment: only the runs of this experiment under `recipe` with `overrides` (`["train.epochs=30"]`), with the
            columns `row`, `label` and `group` before the others, in the order of its table; a run that two rows show
            stands there for both. `status` may then also be stale: of other data than today's, not to be averaged.

    Raises RequestError where there is no such folder or experiment. A folder in it that is no whole record is left out
    with a warning.
    """
    import warnings

    from metaformer_ablate.errors import RequestError
    from metaformer_ablate.records.store import Store

    if not Path(path).is_dir():
        raise RequestError(f"results folder {str(path)!r}: no such folder; `ablate run` makes one")
    store = Store(Path(path))
    if experiment is None:
        frame = store.frame()
    else:
        from metaformer_ablate.data.folder import DataFolder
        from metaformer_ablate.records.status import frame_of_plan
        from metaformer_ablate.spec.plan import plan

        frame = frame_of_plan(plan(experiment, recipe, overrides), store, DataFolder.choose(None))
    for problem in store.problems.values():
        warnings.warn(problem, stacklevel=2)
    return frame
