"""Images that are read one by one: decoded and augmented in loader processes, each by its own random numbers.

What is drawn for an image follows from (seed, epoch, index) alone, so neither the number of loader processes, nor that
of devices, nor a run that is stopped and resumed changes a pixel. Transforms are timm's own, with the arguments of the
authors' script; Mixup, CutMix, normalising and the filling of erased boxes happen on the device (`augment.py`).

timm's readers give the files. Its `ImageDataset` is not used: it puts the next image in place of one that cannot be
read, in evaluation too, and keeps no count of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.loading import read_or_stand_in, why_unreadable
from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.data.unreadable import Seen
from metaformer_ablate.tasks.classification.data.augment import Boxes, draw_box
from metaformer_ablate.tasks.classification.data.files import ImageFiles, open_splits
from metaformer_ablate.tasks.classification.data.transforms import evaluation_transform, training_transform
from metaformer_ablate.tasks.loaders import ReadImages

GREY = (128, 128, 128)


EVALUATION_BATCH = 128  # each is read by one process


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """In the process that trains nothing may notice that images draw."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@dataclass(frozen=True, eq=False)
class TrainingImages(ImageFiles):
    """Batches for training. An index is (epoch, indices [n])."""

    transform: Any
    seed: int = 0
    erasing: float = 0.0  # probability of a box

    def __getitem__(self, index: tuple[int, Tensor]) -> tuple[tuple[Tensor, Tensor, Boxes], Seen]:
        """((images [n, 3, H, W] uint8, labels [n], boxes to erase), what there is to say of them). For images that
        cannot be read others stand in."""
        epoch, indices = index
        images, labels, boxes = [], [], []
        seen = Seen()
        with _random_state_kept():
            for row, i in enumerate(indices.tolist()):
                seed = derive_seed(self.seed, "image", epoch, i)
                _, (picture, label) = read_or_stand_in(
                    lambda index: self.open(index, seen.remarks), self.name, len(self), i, seed, seen
                )
                random.seed(seed)
                np.random.seed(seed % 2**32)
                torch.default_generator.manual_seed(seed)
                image = self.transform(picture)
                box = draw_box(self.erasing, *image.shape[1:]) if self.erasing else None
                if box is not None:
                    boxes.append((row, *box, derive_seed(seed, "noise")))
                images.append(image)
                labels.append(label)
        table = np.array(boxes, dtype=np.int64).reshape(-1, 6)
        return (torch.stack(images), torch.tensor(labels), table), seen


@dataclass(frozen=True, eq=False)
class EvaluationImages(ImageFiles):
    """Batches for evaluation. An index is a slice."""

    transform: Any

    def __getitem__(self, index: slice) -> tuple[tuple[Tensor, Tensor], Seen]:
        """((images [n, 3, H, W] uint8, labels [n]), what there is to say of them).

        In the places of images that cannot be read stand grey pictures, so that every image is evaluated once.
        """
        indices, seen = range(index.start, index.stop), Seen()
        images = self.at(indices, seen)
        return (images, torch.tensor([self.label(i) for i in indices])), seen

    def at(self, indices: Iterable[int], seen: Seen) -> Tensor:
        """Images [n, 3, H, W] uint8 as they are evaluated."""
        images = []
        for i in indices:
            try:
                picture, _ = self.open(i, seen.remarks)
            except Exception as error:
                seen.unreadable[self.name(i)] = why_unreadable(error)
                picture = Image.new("RGB", (256, 256), GREY)
            images.append(self.transform(picture))
        return torch.stack(images)


class ImageFileData(ReadImages):
    """Images and labels."""

    evaluation_batch = EVALUATION_BATCH


def open_image_files(spec: DataSpec, folder: DataFolder, device: torch.device) -> ImageFileData:
    """Opens a data set that is read image by image. Raises RequestError where it is not what the spec says."""
    folder.require(spec.name, spec.reader)
    opened = open_splits(spec, folder)
    erasing = spec.random_erasing or 0.0
    train = TrainingImages(opened.train.source, opened.train.positions, training_transform(spec), erasing=erasing)
    evaluation = EvaluationImages(opened.evaluation.source, opened.evaluation.positions, evaluation_transform(spec))
    gpu = device.type == "cuda"
    return ImageFileData(
        train,
        evaluation,
        spec.workers,
        gpu,
        notes=opened.notes,
        classes=opened.classes,
        trained_on=opened.trained_on,
    )
