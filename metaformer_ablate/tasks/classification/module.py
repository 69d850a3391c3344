"""Image classification: a LightningModule that is given a net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.tasks.base import RunSections, TaskData
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.metrics import at_chance, measure, predictions_of
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.training.spec import TrainSpec


def build_module(run: RunSections, net: nn.Module, data: TaskData) -> Classification:
    """The module that trains a net on a run's data."""
    augment = Augment(run.data, run.data.classes, data.mean, data.std, run.train.memory_format)
    return Classification(net, run.train, augment, data.sizes[0] // run.train.batch_size, run.seed)


class Classification(TaskModule):
    """Trains `net` from uint8 images [B, C, H, W] and labels [B]; logs val/loss, val/top1 and val/top5.

    Accuracies are in percent. Of images in memory every device is given the whole batch, `train.accumulation` times: it
    draws the augmentation of all of it, as one device would, and computes one part of it each time. Of images that are
    read one by one it is given its parts alone, with the boxes to erase.
    """

    def __init__(self, net: nn.Module, train: TrainSpec, augment: Augment, steps_per_epoch: int, seed: int):
        super().__init__(net, train, steps_per_epoch, seed)
        self.augment = augment
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._largest = 0

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.augment.to(self.device)

    def training_loss(self, batch: tuple[Any, ...]) -> Tensor:
        images, targets = self.own_rows(*self.augment(*batch))
        return F.cross_entropy(self(images), targets, label_smoothing=self.spec.label_smoothing)

    def evaluate(self, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        size, self._largest = len(images), max(len(images), self._largest)
        if self.compiled and size < self._largest:  # the last batch, filled up, fits what was compiled for the others
            images = torch.cat([images, images[:1].expand(self._largest - size, -1, -1, -1)])
        logits = self.evaluated(self.augment.normalise(images))[:size]
        self._batches.append((logits.float(), labels))

    def results(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        logits = self.in_order(torch.cat([logits for logits, _ in self._batches]))
        labels = self.in_order(torch.cat([labels for _, labels in self._batches]))
        self._batches.clear()
        return measure(logits, labels), predictions_of(logits, labels)

    def at_chance(self, metrics: Mapping[str, float]) -> bool:
        return at_chance(metrics["top1"], len(self.predictions["label"]), self.augment.num_classes)
