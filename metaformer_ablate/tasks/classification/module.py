"""Image classification: a LightningModule that is given a net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RunSections, TaskData
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.metrics import at_chance, measure, predictions_of
from metaformer_ablate.tasks.classification.predictions import derive
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.training.spec import TrainSpec


def build_module(run: RunSections, net: nn.Module, data: TaskData) -> Classification:
    """The module that trains a net on a run's data."""
    augment = Augment(run.data, run.data.classes, data.mean, data.std, run.train.memory_format)
    weights = None
    if run.train.class_weights is not None:
        weights = balanced_weights(data.train.labels, run.data.classes)  # type: ignore[attr-defined]
    return Classification(net, run.train, augment, data.sizes[0] // run.train.batch_size, run.seed, weights)


def balanced_weights(labels: Tensor | np.ndarray, classes: int) -> Tensor:
    """[classes]: images / (classes x images of the class), of training labels [N]: a rare class weighs more.

    scikit-learn's `balanced` (King and Zeng, 2001); the mean over the training images is 1. Raises RequestError for a
    class without a training image.
    """
    counts = torch.bincount(torch.as_tensor(labels).cpu(), minlength=classes)
    if len(empty := (counts == 0).nonzero().flatten()):
        raise RequestError(
            f"train.class_weights is balanced, and {len(empty)} of {classes} classes have no training image (the first "
            f"is {int(empty[0])}); allowed: null, or a training image of each class"
        )
    return (counts.sum() / (classes * counts.double())).float()


class Classification(TaskModule):
    """Trains `net` from uint8 images [B, C, H, W] and labels [B]; logs val/loss, val/top1 and val/top5.

    Accuracies are in percent. With `class_weights` [classes] the training loss is torch's weighted cross entropy; the
    evaluation loss is not weighted.

    Of images in memory every device is given the whole batch, `train.accumulation` times: it draws the augmentation of
    all of it, as one device would, and computes one part of it each time. Of images that are read one by one it is
    given its parts alone, with the boxes to erase.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        train: TrainSpec,
        augment: Augment,
        steps_per_epoch: int,
        seed: int,
        class_weights: Tensor | None = None,
    ):
        super().__init__(net, train, steps_per_epoch, seed)
        self.register_buffer("class_weights", class_weights, persistent=False)  # follows from the data
        self.augment = augment
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._largest = 0

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.augment.to(self.device)

    def training_loss(self, batch: tuple[Any, ...]) -> Tensor:
        whole, all_targets = self.augment(*batch)
        images, targets = self.own_rows(whole, all_targets)
        smoothing, weights = self.spec.label_smoothing, self.class_weights
        loss = F.cross_entropy(self(images), targets, weight=weights, label_smoothing=smoothing)
        if weights is None or targets.is_floating_point() or len(targets) == len(all_targets):
            return loss
        # torch divides by the weights of the labels: a part counts as much as it weighs in the whole batch.
        share = weights[targets].sum() / weights[all_targets].sum()
        return loss * share * (len(all_targets) / len(targets))

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
        predictions = predictions_of(logits, labels)
        # Logged for Trainers of others; a record gives it from its predictions.
        derived = {name: torch.tensor(value, device=self.device) for name, value in derive(predictions).items()}
        return measure(logits, labels) | derived, predictions

    def at_chance(self, metrics: Mapping[str, float]) -> bool:
        return at_chance(metrics["top1"], len(self.predictions["label"]), self.augment.num_classes)
