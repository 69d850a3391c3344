"""The digits and how grey each of them is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.sampling import EpochBatches, rank_slices
from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.tasks.base import RunSections
from metaformer_ablate.training.spec import TrainSpec


@dataclass(frozen=True)
class Greys:
    """Images [N, 1, H, W] from 0 to 1 and their mean [N], to train on and to evaluate on."""

    train: TensorDataset
    evaluation: TensorDataset
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.train), len(self.evaluation)

    def train_loader(
        self, train: TrainSpec, seed: int, resume_at: tuple[int, int], rank: int, unreadable: Unreadable
    ) -> DataLoader:
        device = self.train.tensors[0].device
        order = EpochBatches(len(self.train), train.batch_size, seed, device, *resume_at, train.accumulation)
        return DataLoader(self.train, sampler=order, batch_size=None)

    def evaluation_loader(self, train: TrainSpec, rank: int, unreadable: Unreadable) -> DataLoader:
        order = rank_slices(len(self.evaluation), 512, rank, train.world)
        return DataLoader(self.evaluation, sampler=order, batch_size=None)


def data_key(run: RunSections) -> tuple[str, int]:
    return run.data.name, run.data.image_size


def open_data(run: RunSections, folder: DataFolder, device: torch.device) -> Greys:
    images = torch.from_numpy(load_digits().images).float().div(16)[:, None]
    images = F.interpolate(images, size=(run.data.image_size,) * 2, mode="bilinear", align_corners=False)
    evaluated = torch.arange(len(images)) % 5 == 4
    parts = (images[~evaluated], images[evaluated])
    return Greys(*(TensorDataset(part.to(device), part.mean((1, 2, 3)).to(device)) for part in parts))
