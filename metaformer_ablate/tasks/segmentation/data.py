"""What segmentation is trained and evaluated on: folders of images and masks, or scenes composed in memory.

What is drawn for an image follows from (seed, epoch, index) alone, so neither the number of loader processes, nor that
of devices, nor a run that is stopped and resumed changes a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from metaformer_ablate.data.datasets import DATASETS, HOLDOUT_EVERY
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.loading import read_or_stand_in, why_unreadable
from metaformer_ablate.data.mask_files import LAYOUTS, MaskLocation, MaskSplit
from metaformer_ablate.data.pictures import as_rgb, remark_on
from metaformer_ablate.data.rules import in_both
from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.data.scenes import SEED, scene
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.data.unreadable import Seen
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.files import open_regular
from metaformer_ablate.tasks.base import RunSections
from metaformer_ablate.tasks.loaders import ReadImages
from metaformer_ablate.tasks.segmentation.task import SegmentationSpec, settings_of
from metaformer_ablate.tasks.segmentation.transforms import IGNORE, Crop, EvaluationTransform, TrainingTransform

GREY = 128


MOST_CLASSES = IGNORE  # 255 of a mask counts for nothing


Evaluated = tuple[
    Tensor, Tensor
]  # an image [1, 3, H, W] as the net sees it, and its mask uint8 [h, w] as it lies there


class Pairs(Protocol):
    """Images with their masks, by index."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def read(self, index: int, seen: Seen) -> tuple[Tensor, Tensor]:
        """uint8 [3, h, w] and uint8 [h, w], where 255 counts for nothing. Raises RequestError where the mask cannot be
        meant, and whatever decoders raise where a file cannot be read."""
        ...


@dataclass(frozen=True)
class MaskFiles:
    """Pairs of files. A mask holds `first_class` on for the classes, and 255 or one of `ignored` for nothing."""

    files: MaskSplit
    classes: int
    first_class: int
    ignored: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        return self.files.names[index]

    def read(self, index: int, seen: Seen) -> tuple[Tensor, Tensor]:
        with open_regular(self.files.image(index)) as file, Image.open(file) as picture:
            image = np.asarray(as_rgb(picture))
            if (remark := remark_on(picture)) is not None:
                seen.remarks[self.name(index)] = remark
        mask = self._mask(self.files.mask(index), image.shape[:2])
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), torch.from_numpy(mask)

    def _mask(self, path: Path, size: tuple[int, ...]) -> np.ndarray:
        with open_regular(path) as file, Image.open(file) as picture:
            if picture.format in ("JPEG", "MPO"):
                raise RequestError(
                    f"{path}: is a JPEG, whose compression changes the classes; allowed: a format that keeps each "
                    "value, such as PNG"
                )
            if picture.mode not in ("L", "P", "1", "I", "I;16", "I;16B"):
                raise RequestError(
                    f"{path}: its mode is {picture.mode}; allowed: one channel that holds the class of each pixel"
                )
            found = np.asarray(picture).astype(np.int64)
        if found.shape != size:
            raise RequestError(
                f"{path}: is {found.shape[1]} x {found.shape[0]} pixels, and its image {size[1]} x {size[0]}; "
                "allowed: a mask of the image's size"
            )
        mask = found - self.first_class
        counts = ~np.isin(found, (IGNORE, *self.ignored))
        if len(odd := np.unique(found[counts & ((mask < 0) | (mask >= self.classes))])):
            rest = f", and 255{''.join(f' or {value}' for value in self.ignored)} for what counts for nothing"
            raise RequestError(
                f"{path}: holds {', '.join(map(str, odd[:3]))}{', ...' if len(odd) > 3 else ''}; allowed: "
                f"{self.first_class} to {self.first_class + self.classes - 1} for {self.classes} classes{rest}"
            )
        return np.where(counts, mask, IGNORE).astype(np.uint8)


@dataclass(frozen=True)
class ScenePairs:
    """Scenes of `data.scenes`, each made when it is first asked for."""

    split: str
    size: int
    count: int
    made: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"scene {index}"

    def read(self, index: int, seen: Seen) -> tuple[Tensor, Tensor]:
        if index not in self.made:
            found = scene(SEED, self.split, index, self.size)
            self.made[index] = torch.from_numpy(found.image), torch.from_numpy(found.class_map)
        return self.made[index]


@dataclass(frozen=True)
class SomePairs:
    """Those at `positions` [N] of others."""

    pairs: Pairs
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, index: int) -> str:
        return self.pairs.name(int(self.positions[index]))

    def read(self, index: int, seen: Seen) -> tuple[Tensor, Tensor]:
        return self.pairs.read(int(self.positions[index]), seen)


@dataclass(frozen=True, eq=False)
class TrainingPairs(Dataset):
    """Batches for training. An index is (epoch, indices [n])."""

    pairs: Pairs
    transform: TrainingTransform
    seed: int = 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: tuple[int, Tensor]) -> tuple[tuple[Tensor, Tensor] | None, Seen]:
        """((images [n, 3, H, W] float32, masks [n, H, W] uint8), what there is to say of them). For images that cannot
        be read others stand in; no batch where a mask is wrong."""
        epoch, indices = index
        seen, found = Seen(), []
        for i in indices.tolist():
            seed = derive_seed(self.seed, "image", epoch, i)
            try:
                _, (image, mask) = read_or_stand_in(
                    lambda index: self.pairs.read(index, seen),
                    self.pairs.name,
                    len(self),
                    i,
                    seed,
                    seen,
                    (RequestError,),
                )
            except RequestError as error:
                seen.wrong.append(str(error))
                return None, seen
            found.append(self.transform(image, mask, np.random.default_rng(seed)))
        images, masks = zip(*found, strict=True)
        return (torch.stack(images), torch.stack(masks)), seen


@dataclass(frozen=True, eq=False)
class EvaluationPairs(Dataset):
    """Single images for evaluation. An index is a slice of one."""

    pairs: Pairs
    transform: EvaluationTransform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: slice) -> tuple[Evaluated | None, Seen]:
        """((image [1, 3, H, W] float32, mask [h, w] uint8), what there is to say of it).

        In the place of an image that cannot be read stands a grey one in which no pixel counts.
        """
        seen = Seen()
        try:
            image, mask = self.pairs.read(index.start, seen)
        except RequestError as error:
            seen.wrong.append(str(error))
            return None, seen
        except Exception as error:
            seen.unreadable[self.pairs.name(index.start)] = why_unreadable(error)
            image = torch.full((3, 256, 256), GREY, dtype=torch.uint8)
            mask = torch.full((256, 256), IGNORE, dtype=torch.uint8)
        return (self.transform(image)[None], mask), seen


class SegmentationData(ReadImages):
    """Images and their masks."""


def transforms_of(task: SegmentationSpec, flip: bool) -> tuple[TrainingTransform, EvaluationTransform]:
    """What images go through in training and in evaluation."""
    scale, exact = (None if size is None else (size[0], size[1]) for size in (task.scale, task.exact_size))
    ratio = None if task.ratio is None else (task.ratio[0], task.ratio[1])
    crop = None if task.crop is None else Crop((task.crop[0], task.crop[1]), task.crop_max_share or 1.0)
    limits = None if scale is None else (max(scale), min(scale))
    training = TrainingTransform(limits, ratio, exact, crop, flip, task.distortion)
    return training, EvaluationTransform(limits, exact, task.eval_multiple)


def open_data(run: RunSections, folder: DataFolder, device: torch.device) -> SegmentationData:
    """The images and masks of a run. Raises RequestError where they are missing or are not what the spec says."""
    data, task = run.data, settings_of(run)
    if data.classes > MOST_CLASSES:
        raise RequestError(f"data.num_classes is {data.classes}; allowed in segmentation: at most {MOST_CLASSES}")
    if task.first_class is not None and not data.in_memory and task.first_class + data.classes > IGNORE:
        raise RequestError(
            f"task.first_class is {task.first_class} and data.num_classes is {data.classes}, but a pixel of {IGNORE} "
            f"counts for nothing; allowed: classes below {IGNORE}"
        )
    if task.crop is None and task.exact_size is None and (task.ratio is not None or not data.in_memory):
        raise RequestError(
            "task.crop and task.exact_size are null, and images of many sizes make no batch; allowed: one of them"
        )
    train: Pairs
    evaluation: Pairs
    train, evaluation, notes = _scenes(data) if data.in_memory else _files(data, task, folder)
    both: tuple[str, ...] = ()
    if isinstance(train, MaskFiles) and isinstance(evaluation, MaskFiles) and data.evaluate_on == "test":
        both = in_both(*((pairs.files.images, pairs.files.names) for pairs in (train, evaluation)))
    if data.evaluate_on == "holdout":
        every = np.arange(len(train))
        held = every % HOLDOUT_EVERY == HOLDOUT_EVERY - 1
        train, evaluation = SomePairs(train, every[~held]), SomePairs(train, every[held])
    training, evaluating = transforms_of(task, bool(data.flip))
    workers = 0 if data.in_memory else data.workers
    pinned = device.type == "cuda"
    return SegmentationData(
        TrainingPairs(train, training),
        EvaluationPairs(evaluation, evaluating),
        workers,
        pinned,
        notes=notes,
        trained_on=both,
    )


def _scenes(data: DataSpec) -> tuple[Pairs, Pairs, tuple[str, ...]]:
    assert data.image_size is not None
    train, test = data.split_sizes() if data.evaluate_on == "test" else (DATASETS[data.name].train_images, 0)
    return ScenePairs("train", data.image_size, train), ScenePairs("test", data.image_size, test), ()


def _files(data: DataSpec, task: SegmentationSpec, folder: DataFolder) -> tuple[Pairs, Pairs, tuple[str, ...]]:
    folder.require(data.name)
    place = folder.place(data.name)
    assert isinstance(place, MaskLocation)
    for split, key in (("train", "train_images"), ("evaluation", "test_images")):
        files, wanted = place.splits[split], getattr(data, key)
        if not len(files):
            raise RequestError(
                f"{files.images}: holds no image for {split}{files.left_out.said()}; allowed: {LAYOUTS['masks']}"
            )
        if len(files) != wanted:
            raise RequestError(
                f"{place.root}: {data.name} holds {len(files)} images for {split}, but data.{key} is {wanted}"
                f"{files.left_out.said()}; allowed: the whole data set, or data.{key}={len(files)}"
            )
    meaning = data.classes, task.first_class or 0, tuple(task.ignored or ())
    notes = [f"not counted for {split} are {files.left_out}" for split, files in place.splits.items() if files.left_out]
    named = tuple(f"{place.root}: {note}" for note in notes)
    return MaskFiles(place.splits["train"], *meaning), MaskFiles(place.splits["evaluation"], *meaning), named


def data_key(run: RunSections) -> Any:
    """The settings that change what `open_data` gives: runs with equal keys share it."""
    return run.data, run.task
