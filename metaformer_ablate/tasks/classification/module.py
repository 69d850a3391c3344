"""Image classification: a LightningModule that is given a net."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.metrics import measure
from metaformer_ablate.tasks.module import Diverged
from metaformer_ablate.training.compute import compile_in_place
from metaformer_ablate.training.micro_batches import MicroBatches
from metaformer_ablate.training.optim import decayed_names, learning_rate, seed_generators, weight_decay_groups
from metaformer_ablate.training.spec import TrainSpec


class Classification(pl.LightningModule):
    """Trains `net` from uint8 images [B, C, H, W] and labels [B]; logs train/loss, val/loss, val/top1 and val/top5.

    Accuracies are in percent. After a validation epoch `labels` and `logits` hold the whole evaluation split, in its
    order, on every device. With `train.ema` it is the averaged weights that are evaluated: after each optimiser step
    they move towards those of the net, batch norm's statistics with them (timm's ModelEmaV3).

    Of images in memory every device is given the whole batch, `train.accumulation` times: it draws the augmentation of
    all of it, as one device would, and computes one part of it each time. Of images that are read one by one it is
    given its parts alone, with the boxes to erase.
    """

    def __init__(self, net: nn.Module, train: TrainSpec, augment: Augment, steps_per_epoch: int, seed: int):
        super().__init__()
        self.net, self.spec, self.augment = net, train, augment
        self.averaged: nn.Module | None = None
        if train.ema is not None:
            from timm.utils import ModelEmaV3

            # In training mode as the rest, or Lightning warns; it is called in evaluation only.
            self.averaged = ModelEmaV3(net, decay=train.ema).requires_grad_(False).train()
        self.parts = MicroBatches(train.world * train.accumulation, net, train.batch_size)
        # Told by their shapes, which fsdp changes once it has the parameters.
        self._decayed = decayed_names(net)
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        self.logits, self.labels = torch.empty(0), torch.empty(0)
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._loss_sum, self._first_bad = torch.zeros(()), torch.full((), -1)
        self.compiled, self._largest = False, 0

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

    def on_fit_start(self) -> None:
        self.augment.to(self.device)
        self.parts.device = self.device

    def on_train_start(self) -> None:
        # Restored sums of an epoch that a checkpoint cut; they lie where the checkpoint was read.
        self._loss_sum, self._first_bad = self._loss_sum.to(self.device), self._first_bad.to(self.device)

    def on_train_epoch_start(self) -> None:  # not called where an epoch is resumed in its middle
        self._loss_sum = torch.zeros((), device=self.device)
        self._first_bad = torch.full((), -1, device=self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        sums = {"loss_sum": self._of_all(self._loss_sum), "first_bad": self._of_all(self._first_bad)}
        checkpoint["epoch_sums"] = sums | {"accumulation": self.spec.accumulation}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["epoch_sums"]
        sums, bad = saved["loss_sum"], saved["first_bad"]
        if (len(sums), saved["accumulation"]) == (self.spec.world, self.spec.accumulation):
            rank = self.global_rank if self.spec.world > 1 else 0
            self._loss_sum, self._first_bad = sums[rank], bad[rank]
        else:  # on other devices: each goes on with what all have seen on the mean
            self._loss_sum = sums.mean() * (self.spec.accumulation / saved["accumulation"])
            self._first_bad = bad.max()

    def _of_all(self, value: Tensor) -> Tensor:
        """[...] of each device: [devices, ...]; every device has to ask."""
        if self.spec.world == 1:
            return value.unsqueeze(0)
        gathered = self.all_gather(value)
        assert isinstance(gathered, Tensor)
        return gathered

    def training_step(self, batch: tuple[Any, ...], batch_idx: int) -> Tensor:
        step, turn = divmod(batch_idx, self.spec.accumulation)
        # Augmentation and stochastic depth follow from (seed, epoch, step), not from what was drawn before, so that
        # a run that is resumed draws the same.
        seed_generators(derive_seed(self.seed, "step", self.current_epoch, step), self.device)
        images, targets = self.augment(*batch)
        if self.parts.count > 1:
            self.parts.at = (self.global_rank if self.spec.world > 1 else 0) * self.spec.accumulation + turn
            if len(images) == self.spec.batch_size:
                images, targets = self.parts.take(images), self.parts.take(targets)
        loss = F.cross_entropy(self(images), targets, label_smoothing=self.spec.label_smoothing)
        self._watch(loss.detach())
        return loss

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
        if bad := [step for step in self._of_all(self._first_bad).tolist() if step >= 0]:
            raise Diverged(min(bad))
        sums = self._of_all(self._loss_sum).tolist()
        return sum(sums) / (len(sums) * self.steps_per_epoch * self.spec.accumulation)

    # Evaluation

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        size, self._largest = len(images), max(len(images), self._largest)
        if self.compiled and size < self._largest:  # the last batch, filled up, fits what was compiled for the others
            images = torch.cat([images, images[:1].expand(self._largest - size, -1, -1, -1)])
        logits = self.evaluated(self.augment.normalise(images))[:size]
        self._batches.append((logits.float(), labels))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self.logits = self._in_order(torch.cat([logits for logits, _ in self._batches]))
        self.labels = self._in_order(torch.cat([labels for _, labels in self._batches]))
        self._batches.clear()
        self.log_dict({f"val/{name}": value for name, value in measure(self.logits, self.labels).items()})

    on_test_epoch_end = on_validation_epoch_end

    def _in_order(self, share: Tensor) -> Tensor:
        """[n, ...] of each device, one after another: [N, ...], on every device."""
        if self.spec.world == 1:
            return share
        sizes = self._of_all(torch.tensor(len(share), device=self.device)).tolist()
        padding = share.new_zeros((max(sizes) - len(share), *share.shape[1:]))
        shares = self._of_all(torch.cat([share, padding]))  # [devices, n of the largest share, ...]
        return torch.cat([shares[i, :size] for i, size in enumerate(sizes)])

    # Optimisation

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.averaged is not None:
            # Counted from 1, as timm does: the first step's weights are taken as they are.
            self.averaged.update(self.net, step=self.global_step + 1)  # type: ignore[operator]

    def configure_optimizers(self) -> Any:
        spec = self.spec
        optimizer = torch.optim.AdamW(
            weight_decay_groups(self.net, spec.weight_decay, self._decayed),
            lr=spec.lr,
            betas=(spec.betas[0], spec.betas[1]),
            eps=spec.eps,
            fused=True,
        )
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate(spec, step, self.steps_per_epoch) / spec.lr
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}
