"""A net of one output, trained by the squared error."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.tasks.base import RunSections, TaskData
from metaformer_ablate.tasks.module import TaskModule

Batch = tuple[Tensor, Tensor]


def build_module(run: RunSections, net: nn.Module, data: TaskData) -> Regression:
    return Regression(net, run.train, data.sizes[0] // run.train.batch_size, run.seed)


class Regression(TaskModule):
    """Trains a net from images [B, 1, H, W] and numbers [B]; logs val/rmse."""

    def training_loss(self, batch: Batch) -> Tensor:
        images, numbers = self.own_rows(*batch)
        return F.mse_loss(self(images).squeeze(1), numbers)

    def on_validation_epoch_start(self) -> None:
        self._found: list[Batch] = []

    def evaluate(self, batch: Batch) -> None:
        images, numbers = batch
        self._found.append((self.evaluated(images).squeeze(1).float(), numbers))

    def results(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        predicted, numbers = (self.in_order(torch.cat(parts)) for parts in zip(*self._found, strict=True))
        predictions = {"number": numbers.cpu().numpy(), "predicted": predicted.cpu().numpy()}
        return {"rmse": F.mse_loss(predicted, numbers).sqrt()}, predictions
