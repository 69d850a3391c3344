"""What the LightningModules of all tasks share: a step of training, averaged weights, sums of the loss, gathering."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.models.freezing import kept_in_evaluation
from metaformer_ablate.training.compute import compile_in_place
from metaformer_ablate.training.micro_batches import MicroBatches
from metaformer_ablate.training.optim import decayed_names, learning_rate, make_optimizer, seed_generators
from metaformer_ablate.training.spec import TrainSpec


class Diverged(Exception):
    """The loss is NaN or infinite. `step` counts optimiser steps from 0."""

    def __init__(self, step: int):
        super().__init__(f"the loss is not finite at step {step}")
        self.step = step


class TaskModule(pl.LightningModule):
    """Trains `net` as `train` of a spec says. A task's module gives the loss of a batch and the metrics.

    It defines `training_loss`, `evaluate` and `results`. After a validation epoch `predictions` holds what a record
    keeps of the whole evaluation split, in its order, on every device, and each metric is logged as `val/<name>`.

    With `train.ema` it is the averaged weights that are evaluated: after each optimiser step they move towards those
    of the net, batch norm's statistics with them (timm's ModelEmaV3).

    A device is given `train.accumulation` batches per step and computes one part of the whole batch of each.
    """

    def __init__(self, net: nn.Module, train: TrainSpec, steps_per_epoch: int, seed: int):
        super().__init__()
        self.net, self.spec = net, train
        self.averaged: nn.Module | None = None
        if train.ema is not None:
            from timm.utils import ModelEmaV3

            # In training mode as the rest, or Lightning warns; it is called in evaluation only.
            self.averaged = ModelEmaV3(net, decay=train.ema).requires_grad_(False).train()
        self.micro_batches = MicroBatches(train.world * train.accumulation, net, train.batch_size)
        self._evaluating = kept_in_evaluation(net)  # by name: batch norms may be replaced by synchronised ones
        # Told by their shapes, which fsdp changes once it has the parameters.
        self._decayed = decayed_names(net, train.decay_on)
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self.predictions: dict[str, np.ndarray] = {}
        self._loss_sum, self._first_bad = torch.zeros(()), torch.full((), -1)
        self.compiled = False
        self._logs = False  # whether the Trainer has a logger; that of a run has none
        self.train()

    # What a task defines

    def training_loss(self, batch: Any) -> Tensor:
        """The loss of a batch as its loader gives it. The generators are seeded; `own_rows` takes a device's part."""
        raise NotImplementedError

    def evaluate(self, batch: Any) -> None:
        """Adds a batch to what `results` are of."""
        raise NotImplementedError

    def results(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        """Metrics by name and predictions, of all that was evaluated on all devices (`in_order`); begins anew."""
        raise NotImplementedError

    def at_chance(self, metrics: Mapping[str, float]) -> bool | None:
        """Whether the net has learnt nothing, as far as its metrics and `predictions` tell; None: a task cannot say."""
        return None

    # The net

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    @property
    def evaluated(self) -> nn.Module:
        """The net that is evaluated: the averaged one, if there is one."""
        return self.net if self.averaged is None else self.averaged.module  # type: ignore[return-value]

    def compile_nets(self) -> None:
        """Has the net compiled for its batches of training and those of evaluation."""
        self.compiled = True
        compile_in_place(self.net, *([] if self.averaged is None else [self.evaluated]))

    # Training

    def train(self, mode: bool = True) -> TaskModule:
        """`nn.Module.train`, but what of the net is frozen or keeps its statistics stays in evaluation mode."""
        super().train(mode)
        for name in self._evaluating:
            self.net.get_submodule(name).training = False
        return self

    def on_fit_start(self) -> None:
        self.micro_batches.device = self.device

    def on_train_start(self) -> None:
        # Restored sums of an epoch that a checkpoint cut; they lie where the checkpoint was read.
        self._loss_sum, self._first_bad = self._loss_sum.to(self.device), self._first_bad.to(self.device)
        self._logs = bool(self.trainer.loggers)

    def on_train_epoch_start(self) -> None:  # not called where an epoch is resumed in its middle
        self._loss_sum = torch.zeros((), device=self.device)
        self._first_bad = torch.full((), -1, device=self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = {"loss_sum": self.of_all_devices(self._loss_sum), "first_bad": self.of_all_devices(self._first_bad)}
        checkpoint["epoch_sums"] = sums | {"accumulation": self.spec.accumulation}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["epoch_sums"]
        sums, bad = saved["loss_sum"], saved["first_bad"]
        if (len(sums), saved["accumulation"]) == (self.spec.world, self.spec.accumulation):
            self._loss_sum, self._first_bad = sums[self._rank], bad[self._rank]
        else:  # on other devices: each goes on with what all have seen on the mean
            self._loss_sum = sums.mean() * (self.spec.accumulation / saved["accumulation"])
            self._first_bad = bad.max()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        step, turn = divmod(batch_idx, self.spec.accumulation)
        # Augmentation and stochastic depth follow from (seed, epoch, step), not from what was drawn before, so that
        # a run that is resumed draws the same.
        seed_generators(derive_seed(self.seed, "step", self.current_epoch, step), self.device)
        if self.micro_batches.count > 1:
            self.micro_batches.at = self._rank * self.spec.accumulation + turn
        loss = self.training_loss(batch)
        self._watch(loss.detach())
        if self._logs:
            self.log("train/loss", loss.detach(), batch_size=self.spec.batch_size)
        return loss

    def own_rows(self, *of_batch: Tensor) -> tuple[Tensor, ...]:
        """[B, ...] -> [b, ...]: of a whole batch the part at work; what a loader gave in part stays as it is."""
        whole = self.micro_batches.count > 1 and len(of_batch[0]) == self.spec.batch_size
        return tuple(self.micro_batches.take(value) for value in of_batch) if whole else of_batch

    def _watch(self, loss: Tensor) -> None:
        """Adds up the loss where it lies. On a GPU a look at it would wait for the device, and where several devices
        train one of them may not end alone: left to the epoch's end."""
        self._loss_sum += loss
        if self.device.type == "cpu" and self.spec.world == 1:
            if not math.isfinite(loss.item()):
                raise Diverged(self.global_step)
        else:
            first = (self._first_bad < 0) & ~loss.isfinite()
            self._first_bad = torch.where(first, self.global_step, self._first_bad)

    def finish_epoch(self) -> float:
        """The mean loss over the steps of the epoch and all devices. Raises Diverged if a loss was not finite, on
        every device the same."""
        if bad := [step for step in self.of_all_devices(self._first_bad).tolist() if step >= 0]:
            raise Diverged(min(bad))
        sums = self.of_all_devices(self._loss_sum).tolist()
        return sum(sums) / (len(sums) * self.steps_in_epoch(self.current_epoch) * self.spec.accumulation)

    def steps_in_epoch(self, epoch: int) -> int:
        """Optimiser steps of an epoch, counted from 0: with `train.steps` the last one may be a short one."""
        return min(self.steps_per_epoch, self.spec.all_steps(self.steps_per_epoch) - epoch * self.steps_per_epoch)

    # Evaluation

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate(batch)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        metrics, self.predictions = self.results()
        self.log_dict({f"val/{name}": value for name, value in metrics.items()})

    on_test_epoch_end = on_validation_epoch_end

    # Devices

    @property
    def _rank(self) -> int:
        return self.global_rank if self.spec.world > 1 else 0

    def of_all_devices(self, value: Tensor) -> Tensor:
        """[...] of each device: [devices, ...]; every device has to ask."""
        if self.spec.world == 1:
            return value.unsqueeze(0)
        gathered = self.all_gather(value)
        assert isinstance(gathered, Tensor)
        return gathered

    def in_order(self, share: Tensor) -> Tensor:
        """[n, ...] of each device, one after another: [N, ...], on every device."""
        if self.spec.world == 1:
            return share
        sizes = self.of_all_devices(torch.tensor(len(share), device=self.device)).tolist()
        padding = share.new_zeros((max(sizes) - len(share), *share.shape[1:]))
        shares = self.of_all_devices(torch.cat([share, padding]))  # [devices, n of the largest share, ...]
        return torch.cat([shares[i, :size] for i, size in enumerate(sizes)])

    # Optimisation

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.averaged is not None:
            # Counted from 1, as timm does: the first step's weights are taken as they are.
            self.averaged.update(self.net, step=self.global_step + 1)  # type: ignore[operator]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """By the norm of all gradients, as Lightning does; it refuses a fused optimiser in bf16, as if losses were
        scaled there."""
        if gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def configure_optimizers(self) -> Any:
        spec = self.spec
        optimizer = make_optimizer(self.net, spec, self._decayed)
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(spec, step, self.steps_per_epoch) / spec.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}
