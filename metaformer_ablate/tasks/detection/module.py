"""Detection: a LightningModule that is given a detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metaformer_ablate.tasks.base import RunSections, TaskData
from metaformer_ablate.tasks.detection.metrics import Evaluation, measure
from metaformer_ablate.tasks.detection.pyramid import Target
from metaformer_ablate.tasks.detection.task import DetectionSpec
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.training.compute import compile_in_place
from metaformer_ablate.training.spec import TrainSpec


def build_module(run: RunSections, net: nn.Module, data: TaskData) -> Detection:
    """The module that trains a detector on a run's data."""
    assert isinstance(run.task, DetectionSpec)
    return Detection(net, run.train, data.sizes[0] // run.train.batch_size, run.seed, run.task.has_masks)


class Detection(TaskModule):
    """Trains `net` from lists of images [3, H, W], normalised, and of targets; logs val/box_ap and the others.

    The loss is the sum of the net's losses. What a detector draws (which anchors and proposals are trained on) follows
    from (seed, epoch, step), as everything that is drawn in a step. Images are evaluated one at a time: a norm over
    positions sees the padding of a batch.
    """

    def __init__(self, net: nn.Module, train: TrainSpec, steps_per_epoch: int, seed: int, masks: bool):
        super().__init__(net, train, steps_per_epoch, seed)
        self.masks = masks
        self.found = Evaluation(masks)

    def compile_nets(self) -> None:
        """The backbones alone: what follows has as many regions as there happen to be."""
        self.compiled = True
        nets: list[Any] = [self.net] if self.averaged is None else [self.net, self.evaluated]
        compile_in_place(*(each.backbone.body for each in nets))

    def training_loss(self, batch: tuple[list[Tensor], list[Target]]) -> Tensor:
        images, targets = batch
        (rows,) = self.own_rows(torch.arange(len(images)))
        losses = self.net([images[i] for i in rows], [targets[i] for i in rows])
        return torch.stack(list(losses.values())).sum()

    def evaluate(self, batch: tuple[Tensor, Target]) -> None:
        image, target = batch
        height, width = target["size"].tolist()
        (found,) = self.evaluated([image], sizes=[(height, width)])
        self.found.add(found, target)

    def results(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        share = {name: values.to(self.device) for name, values in self.found.arrays().items()}
        self.found = Evaluation(self.masks)
        arrays = {name: self.in_order(values) for name, values in share.items()}
        return measure(arrays), {name: values.cpu().numpy() for name, values in arrays.items()}
