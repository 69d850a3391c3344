"""A recipe's LightningModule and LightningDataModule, for a Trainer of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.utils.data import DataLoader

from metaformer_ablate.api.overrides import Overrides, override_layer
from metaformer_ablate.api.training import fetch_data
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.errors import RequestError
from metaformer_ablate.runs.prepare import build_module
from metaformer_ablate.runs.trainer import trainer_arguments
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.devices import choose_devices
from metaformer_ablate.tasks.base import TaskData
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.tasks.registry import task_of
from metaformer_ablate.training.compute import ComputeSettings


def lightning(
    recipe: str = "digits",
    overrides: Overrides = (),
    *,
    net: nn.Module | None = None,
    seed: int = 0,
    data: str | None = None,
    device: str = "auto",
) -> tuple[TaskModule, RecipeData]:
    """The LightningModule and the LightningDataModule of a recipe.

        module, data = ma.lightning("digits", {"model.token_mixer": "attention"})
        pl.Trainer(**data.trainer_arguments, logger=...).fit(module, data)

    Under `trainer_arguments` and with as many CPU threads as the recipe says (`torch.set_num_threads`), they give what
    `ablate run` records for the same spec: bit for bit on a CPU. Another Trainer may do otherwise; the learning rate
    follows the recipe's schedule all the same.

    `module.net` is the plain net. The module logs the task's metrics as `val/<name>` (accuracies in percent) and, where
    the Trainer has a logger, `train/loss`. Augmentation and drawing follow from (seed, epoch, step) alone.

    Args:
        recipe: a name (`ablate list recipes`) or the path of a `.yaml` file.
        overrides: settings over it, as `load_experiment` takes them; `model.*` says which net.
        net: train this net instead; of classification it maps images [B, C, H, W] to logits [B, classes].
        seed: of weights, order and augmentation.
        data: the folder of data sets; by default $ABLATE_DATA, else a folder in the user's cache.
        device: auto, cpu, cuda or cuda:N: where images that fit in memory lie, which is where the Trainer must train.

    Raises RequestError for what is unknown or contradictory, and where data cannot be had.
    """
    spec = resolve([load_recipe(recipe).layer, override_layer(overrides)], seed=seed)
    return pair(spec, DataFolder.choose(data, called="data"), device, net)


def pair(spec: RunSpec, folder: DataFolder, device: str, net: nn.Module | None) -> tuple[TaskModule, RecipeData]:
    """`lightning` of a resolved spec."""
    fetch_data([spec], folder)
    devices = choose_devices(device, spec.train.devices)
    chosen = devices[0]
    opened = task_of(spec).part("data").open_data(spec, folder, chosen)
    computing = ComputeSettings.on(chosen, spec.train)
    module, batch_norm = build_module(spec, opened, computing, chosen, net)
    arguments = trainer_arguments(spec.train, devices, computing, batch_norm)
    return module, RecipeData(spec, opened, arguments, module.steps_per_epoch)


class RecipeData(pl.LightningDataModule):
    """The images of a run in the order and with the augmentation of its recipe.

    `spec` is the resolved spec. `trainer_arguments` are what the recipe asks of a Trainer: devices, precision, length,
    accumulation, clipping. Each split that is validated or tested is the recipe's evaluation split.
    """

    def __init__(self, spec: RunSpec, opened: TaskData, arguments: Mapping[str, Any], steps_per_epoch: int):
        super().__init__()
        self.spec, self._opened = spec, opened
        self._unreadable = Unreadable(spec.data.max_unreadable or 0)
        length = {"max_epochs": spec.train.all_epochs(steps_per_epoch)}
        if spec.train.steps is not None:
            length["max_steps"] = spec.train.steps
        self.trainer_arguments: dict[str, Any] = {**arguments, **length}

    @property
    def unreadable(self) -> dict[str, Any]:
        """What could not be read of sets that are read image by image, by split."""
        return self._unreadable.to_record()

    def setup(self, stage: str) -> None:
        """Raises RequestError where the Trainer shares batches otherwise than the recipe."""
        train, trainer = self.spec.train, self.trainer
        assert trainer is not None
        if trainer.world_size != train.world:
            raise RequestError(
                f"the Trainer has {trainer.world_size} devices, the recipe's train.devices and train.nodes ask for "
                f"{train.world}; allowed: the same number"
            )
        if stage == "fit" and trainer.accumulate_grad_batches != train.accumulation:
            raise RequestError(
                f"the Trainer's accumulate_grad_batches is {trainer.accumulate_grad_batches}, the recipe's "
                f"train.micro_batch asks for {train.accumulation}; allowed: the same number"
            )

    def train_dataloader(self) -> DataLoader:
        return self._opened.train_loader(self.spec.train, self.spec.seed, (0, 0), self._rank, self._unreadable)

    def val_dataloader(self) -> DataLoader:
        return self._opened.evaluation_loader(self.spec.train, self._rank, self._unreadable)

    test_dataloader = val_dataloader

    @property
    def _rank(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_rank
