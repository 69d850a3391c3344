"""Small image sets as tensors: reading, splitting, resizing, and the epochs of batches over them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from metaformer_ablate.data import digits
from metaformer_ablate.data.datasets import DATASETS, HOLDOUT_EVERY
from metaformer_ablate.data.download import download
from metaformer_ablate.data.folder import TORCHVISION_CLASS, DataFolder
from metaformer_ablate.data.sampling import EpochBatches, rank_slices
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.classification.data.files import open_splits
from metaformer_ablate.training.spec import TrainSpec


class ImageTensors(Dataset):
    """uint8 images [N, C, H, W] and int64 labels [N]. An index may be a tensor of indices: then a batch."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def to(self, device: torch.device) -> ImageTensors:
        return ImageTensors(self.images.to(device), self.labels.to(device))


class MirroredToo(Dataset):
    """The images, and after them their mirror images: index N + i is image i, flipped left to right."""

    def __init__(self, data: ImageTensors):
        self.data = data

    def __len__(self) -> int:
        return 2 * len(self.data)

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        images, labels = self.data[index % len(self.data)]
        mirrored = (index >= len(self.data)).view(-1, 1, 1, 1)
        return torch.where(mirrored, images.flip(-1), images), labels


@dataclass(frozen=True)
class InMemoryData:
    """What is trained on, what is evaluated on, and mean and standard deviation per channel of the former (0 to 1).

    With `alternating` each image is flipped left to right in every other epoch.
    """

    train: ImageTensors
    evaluation: ImageTensors
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()  # names in the order of the labels, where they are known
    files: tuple[str, ...] = ()  # of the evaluation images, where they are files
    notes: tuple[str, ...] = ()
    remarks: dict[str, dict[str, str]] = field(default_factory=dict)  # split: name: kind of `REMARKS`
    trained_on: tuple[str, ...] = ()  # names of images that are evaluated and trained on
    alternating: bool = False

    def to(self, device: torch.device) -> InMemoryData:
        return replace(self, train=self.train.to(device), evaluation=self.evaluation.to(device))

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.train), len(self.evaluation)

    def train_loader(
        self, train: TrainSpec, seed: int, place: tuple[int, int], rank: int, unreadable: Unreadable
    ) -> DataLoader:
        """Whole batches, from a place (epoch, batch) on: each device augments all of one, and computes its parts."""
        for split, kinds in self.remarks.items():
            unreadable.remark(split, kinds)
        return train_loader(self.train, train.batch_size, seed, *place, train.accumulation, self.alternating)

    def evaluation_loader(self, train: TrainSpec, rank: int, unreadable: Unreadable) -> DataLoader:
        """A device's share of the images to evaluate."""
        unreadable.remark("evaluation", dict.fromkeys(self.trained_on, "trained_on"))
        return evaluation_loader(self.evaluation, share=rank, shares=train.world)


def load_images(spec: DataSpec, folder: DataFolder) -> InMemoryData:
    """Reads a data set that fits in memory, as the spec splits and sizes it.

    Raises RequestError where files are missing in a folder that the user named, cannot be downloaded or cannot be read.
    """
    if DATASETS[spec.name].in_folder:
        return _from_folder(spec, folder)
    if spec.name == "digits":
        pixels, classes, evaluated = digits.load()
        images, labels, test = torch.from_numpy(pixels)[:, None], torch.from_numpy(classes), torch.from_numpy(evaluated)
        train_part = ImageTensors(images[~test], labels[~test])
        test_part = ImageTensors(images[test], labels[test])
    else:
        train_part, test_part = _torchvision(spec.name, folder)
    if spec.evaluate_on == "holdout":
        held = torch.arange(len(train_part)) % HOLDOUT_EVERY == HOLDOUT_EVERY - 1
        held[(len(train_part) // HOLDOUT_EVERY) * HOLDOUT_EVERY :] = False
        test_part = ImageTensors(train_part.images[held], train_part.labels[held])
        train_part = ImageTensors(train_part.images[~held], train_part.labels[~held])
    train_part.images = _resize(train_part.images, spec.net_shape[2])
    test_part.images = _resize(test_part.images, spec.net_shape[2])
    mean, std = _moments(train_part.images)
    alternating = spec.flip == "alternating"
    return InMemoryData(train_part, test_part, mean, std, DATASETS[spec.name].classes, alternating=alternating)


def _from_folder(spec: DataSpec, folder: DataFolder) -> InMemoryData:
    """A data set of image files, read once, each image as the middle square of its shorter side."""
    folder.require(spec.name, spec.reader)
    if folder.missing(spec.name):
        download(spec.name, folder)
    opened = open_splits(spec, folder)
    parts, remarks = {}, {}
    for split, images in (("train", opened.train), ("evaluation", opened.evaluation)):
        pixels, remarks[split] = images.squares(spec.net_shape[0], spec.net_shape[2])
        parts[split] = ImageTensors(pixels, torch.from_numpy(images.labels))
    mean, std = _moments(parts["train"].images)
    return InMemoryData(
        parts["train"],
        parts["evaluation"],
        mean,
        std,
        classes=DATASETS[spec.name].classes or opened.classes,
        files=tuple(opened.evaluation.name(i) for i in range(len(opened.evaluation))),
        notes=opened.notes,
        remarks=remarks,
        trained_on=opened.trained_on,
        alternating=spec.flip == "alternating",
    )


def _torchvision(name: str, folder: DataFolder) -> tuple[ImageTensors, ImageTensors]:
    folder.require(name)
    if folder.missing(name):
        download(name, folder)
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, TORCHVISION_CLASS[name])
    parts = []
    for train in (True, False):
        try:
            part = dataset(str(folder.path), train=train)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise RequestError(f"{folder.path}: {name} cannot be read: {reason}") from None
        images = torch.as_tensor(part.data)
        images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        parts.append(ImageTensors(images.contiguous(), torch.as_tensor(part.targets).long()))
    facts = DATASETS[name]
    if (len(parts[0]), len(parts[1])) != (facts.train_images, facts.test_images):
        raise RequestError(
            f"{folder.path}: {name} holds {len(parts[0])} and {len(parts[1])} images; "
            f"allowed: {facts.train_images} and {facts.test_images}"
        )
    return parts[0], parts[1]


def _resize(images: Tensor, size: int) -> Tensor:
    """[N, C, h, w] uint8 -> [N, C, size, size] uint8, bilinear, with antialiasing where it shrinks."""
    if images.shape[-2:] == (size, size):
        return images
    resized = F.interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def _moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel of pixels scaled to 0..1, by exact sums of integers, whatever the threads."""
    count = images.numel() // images.shape[1]
    mean, std = [], []
    for channel in range(images.shape[1]):
        values = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        first = float((values * levels).sum()) / count
        second = float((values * levels.square()).sum()) / count
        mean.append(round(first, 6))
        std.append(round(max(second - first**2, 1e-12) ** 0.5, 6))
    return tuple(mean), tuple(std)


def train_loader(
    data: ImageTensors,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    first_batch: int = 0,
    repeats: int = 1,
    alternating: bool = False,
) -> DataLoader:
    """Batches [B, C, H, W] uint8 and labels [B] where the data lies, from a place on (`EpochBatches`).

    The images left over after full batches wait for another epoch.
    """
    place = (data.images.device, first_epoch, first_batch, repeats)
    order = EpochBatches(len(data), batch_size, seed, *place, mirrored=alternating)
    return DataLoader(MirroredToo(data) if alternating else data, sampler=order, batch_size=None)


def evaluation_loader(data: ImageTensors, batch_size: int = 512, share: int = 0, shares: int = 1) -> DataLoader:
    """Every image once, in the order of the data set; or one of `shares`, which follow one another and are of almost
    one size.

    Each share has an image where there are at least as many images as shares.
    """
    return DataLoader(data, sampler=rank_slices(len(data), batch_size, share, shares), batch_size=None)
