"""Images that are read one by one: the loaders of a run, whatever the images carry with them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch.utils.data import DataLoader, Dataset

from metaformer_ablate.data.loading import ImageFileLoader, NamedEpochBatches
from metaformer_ablate.data.sampling import RankShare, rank_slices
from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.training.spec import TrainSpec


@dataclass(frozen=True)
class ReadImages:
    """What is trained on and what is evaluated on (`TaskData`); mean and standard deviation (0 to 1) of ImageNet.

    `train` is a frozen data class with a field `seed`, indexed by (epoch, indices [n]); `evaluation` is indexed by a
    slice. Both give (batch, `Seen`). Their module is what loader processes import.
    """

    train: Any
    evaluation: Any
    workers: int | None  # of each device; None: as many as there are cores
    pinned: bool
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD
    notes: tuple[str, ...] = ()  # what people have to know of the files
    classes: tuple[str, ...] = ()  # names in the order of the labels, where they are known
    trained_on: tuple[str, ...] = ()  # names of images that are evaluated and trained on

    # One at a time where a norm over positions would see the padding of a batch.
    evaluation_batch: ClassVar[int] = 1

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.train), len(self.evaluation)

    def order(self, batch_size: int, seed: int, place: tuple[int, int], share: RankShare) -> NamedEpochBatches:
        """Which images are trained on together, from a place (epoch, batch) on."""
        return NamedEpochBatches(len(self.train), batch_size, seed, torch.device("cpu"), *place, share=share)

    def train_loader(
        self, train: TrainSpec, seed: int, place: tuple[int, int], rank: int, unreadable: Unreadable
    ) -> DataLoader:
        """The parts of each batch that a device takes, one after another, from a place (epoch, batch) on."""
        images = replace(self.train, seed=seed)
        share = RankShare(train.world * train.accumulation, rank * train.accumulation, train.accumulation)
        order = self.order(train.batch_size, seed, place, share)
        return self._loader(images, order, train, unreadable, "train")

    def evaluation_loader(self, train: TrainSpec, rank: int, unreadable: Unreadable) -> DataLoader:
        """Every image of a device's share once, in the order of the data set."""
        unreadable.remark("evaluation", dict.fromkeys(self.trained_on, "trained_on"))
        slices = rank_slices(len(self.evaluation), self.evaluation_batch, rank, train.world)
        return self._loader(self.evaluation, slices, train, unreadable, "evaluation")

    def _loader(
        self, images: Dataset, order: Iterable[Any], train: TrainSpec, unreadable: Unreadable, split: str
    ) -> DataLoader:
        workers = self.workers
        if workers is None:
            workers = max(1, len(os.sched_getaffinity(0)) // train.devices)
        preload = type(images).__module__
        return ImageFileLoader(images, order, workers, self.pinned, unreadable, split, preload=preload)
