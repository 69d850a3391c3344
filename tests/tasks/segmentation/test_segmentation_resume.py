"""A run of segmentation that is stopped at any step ends with the record of one that never was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from disturbed import StopAfter, content
from mask_folders import RECIPE, write_folder

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.settings.layers import Layer, flatten
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted


def disturbed_spec() -> RunSpec:
    """Two epochs of four steps with everything that draws or remembers: scales, crops, flips, colours, dropout,
    stochastic depth, batch norm, averaged weights."""
    tree = {key: value for key, value in parse(RECIPE, "recipe").items() if key != "title"}
    over = {
        "task.distortion": True,
        "task.head_norm": "batch_norm",
        "task.head_dropout": 0.5,
        "model.drop_path": 0.3,
        "train.ema": 0.5,
    }
    return resolve([Layer({**flatten(tree, str), **over}, lambda path: "test")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return DataFolder(write_folder(tmp_path_factory.mktemp("masks")), given=True)


def runner(results: Path, folder: DataFolder) -> Runner:
    return Runner(Store(results), folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def undisturbed(environment: None, folder: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> Record:
    return runner(tmp_path_factory.mktemp("undisturbed"), folder).run(disturbed_spec())


# The first step, the middle of an epoch, its last step, the evaluation after it, the next epoch's first step, the end.
@pytest.mark.parametrize("steps", [0, 2, 3, 4, 5, 7])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    steps: int, undisturbed: Record, folder: DataFolder, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path, folder).run(disturbed_spec(), RunOptions(stop=StopAfter(steps)))
    assert content(runner(tmp_path, folder).run(disturbed_spec())) == content(undisturbed)
