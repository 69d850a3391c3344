"""Semantic segmentation: a LightningModule that is given the net."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.data.rules import some
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.memory_format import torch_format
from metaformer_ablate.tasks.base import RunSections, TaskData
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.tasks.segmentation.data import Evaluated
from metaformer_ablate.tasks.segmentation.metrics import at_chance, measure
from metaformer_ablate.tasks.segmentation.net import enlarge
from metaformer_ablate.tasks.segmentation.transforms import IGNORE
from metaformer_ablate.training.spec import TrainSpec

logger = logging.getLogger(__name__)

ROWS = 64  # of a label map whose loss is computed at once: of 150 classes the logits of a photograph fill a gigabyte


def build_module(run: RunSections, net: nn.Module, data: TaskData) -> Segmentation:
    """The module that trains a net on a run's data."""
    return Segmentation(net, run.train, run.data.classes, data.sizes[0] // run.train.batch_size, run.seed)


class Segmentation(TaskModule):
    """Trains `net` from images [B, 3, H, W] and masks uint8 [B, H, W]; logs val/miou, val/pixel_accuracy and more.

    Accuracies are in percent. The loss is cross-entropy of logits enlarged to the mask, over pixels that count, divided
    by all pixels, as mmsegmentation 0.19 divides it. Evaluation takes one image at a time: norms over a whole map see
    what pads it.
    """

    def __init__(self, net: nn.Module, train: TrainSpec, classes: int, steps_per_epoch: int, seed: int):
        super().__init__(net, train, steps_per_epoch, seed)
        self.classes = classes
        self._images: list[Tensor] = []  # [3, classes] of each: intersection, union, truth
        self._confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self._loss = torch.zeros(2, dtype=torch.float64)  # its sum, and the pixels that count
        self._told_absent = False

    def training_loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, masks = self.own_rows(*batch)
        logits = enlarge(self(images.to(memory_format=self._memory_format)), (masks.shape[1], masks.shape[2]))
        loss = F.cross_entropy(
            logits.float(),
            masks.long(),
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.spec.label_smoothing,
        )
        return loss / masks.numel()

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch_format(self.spec.memory_format)

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        self._images = []
        self._confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64, device=self.device)
        self._loss = torch.zeros(2, dtype=torch.float64)

    on_test_epoch_start = on_validation_epoch_start

    def evaluate(self, batch: Evaluated) -> None:
        image, mask = batch
        logits = logits_of(self.evaluated, image.to(memory_format=self._memory_format), mask)
        confusion = count(logits, mask, self.classes)
        self._confusion += confusion
        right, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        self._images.append(torch.stack([right, truth + predicted - right, truth]))
        self._loss += torch.tensor([summed_loss(logits, mask), float(truth.sum())], dtype=torch.float64)

    def results(self) -> tuple[dict[str, Tensor], dict[str, np.ndarray]]:
        images = self.in_order(torch.stack(self._images)).cpu().numpy()  # [N, 3, classes]
        confusion = self.of_all_devices(self._confusion).sum(0).cpu().numpy()
        loss, pixels = self.of_all_devices(self._loss.to(self.device)).sum(0).tolist()
        if not pixels:
            raise RequestError("no pixel of the evaluated masks counts; allowed: masks that have some of their classes")
        present = np.flatnonzero(confusion.sum(1))
        if len(present) == 1:  # any map of it is right everywhere
            raise RequestError(
                f"of {self.classes} classes only class {present[0]} has pixels in the evaluated masks, and 255 is no "
                f"class; allowed: masks of two classes or more"
            )
        if len(present) < self.classes and not self._told_absent:
            self._told_absent = True
            absent = [str(number) for number in range(self.classes) if number not in present]
            logger.info(
                f"note: {len(absent)} of {self.classes} classes have no pixel in the evaluated masks: {some(absent)}"
            )
        small = images.astype(np.uint32)
        predictions = {name: small[:, i] for i, name in enumerate(("intersection", "union", "truth"))}
        metrics = {**measure(confusion), "loss": loss / pixels}
        return {name: torch.tensor(value) for name, value in metrics.items()}, {**predictions, "confusion": confusion}

    def at_chance(self, metrics: Mapping[str, float]) -> bool:
        return at_chance(self.predictions["confusion"])


def logits_of(net: nn.Module, image: Tensor, mask: Tensor) -> Tensor:
    """Image [1, 3, H, W] and its mask [h, w] -> float32 logits [1, classes, h, w]: enlarged to the image that the net
    saw, and from there resized to the mask, as mmsegmentation does it."""
    logits = net(image).float()
    return enlarge(enlarge(logits, (image.shape[2], image.shape[3])), (mask.shape[0], mask.shape[1]))


def count(logits: Tensor, mask: Tensor, classes: int) -> Tensor:
    """Logits [1, classes, h, w] and mask [h, w] -> pixels [classes, classes] int64, a row per true class."""
    counted = mask != IGNORE
    pairs = mask[counted].long() * classes + logits[0].argmax(0)[counted]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def summed_loss(logits: Tensor, mask: Tensor) -> float:
    """The cross-entropy of logits [1, classes, h, w] and mask [h, w], summed over the pixels that count."""
    strips = zip(logits.split(ROWS, dim=2), mask.split(ROWS), strict=True)
    return sum(
        F.cross_entropy(some, truth[None].long(), ignore_index=IGNORE, reduction="sum").item() for some, truth in strips
    )
