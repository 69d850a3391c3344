"""What detection is trained and evaluated on: COCO and whatever is annotated in its format, or composed scenes.

What is drawn for an image follows from (seed, epoch, index) alone, so neither the number of loader processes, nor that
of devices, nor a run that is stopped and resumed changes a pixel. Images are evaluated one at a time.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import Dataset

from metaformer_ablate.data.coco_annotations import CocoSplit
from metaformer_ablate.data.coco_files import CocoLocation, missing_images
from metaformer_ablate.data.datasets import HOLDOUT_EVERY
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.loading import read_or_stand_in, why_unreadable
from metaformer_ablate.data.rules import in_both, some
from metaformer_ablate.data.sampling import RankShare, derive_seed
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.data.unreadable import Seen
from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RunSections
from metaformer_ablate.tasks.detection.batches import PairedBatches
from metaformer_ablate.tasks.detection.examples import CocoExamples, Examples, SceneExamples
from metaformer_ablate.tasks.detection.task import DetectionSpec
from metaformer_ablate.tasks.detection.transforms import Transform, is_box
from metaformer_ablate.tasks.loaders import ReadImages

GREY = 128
SMALLEST_SIDE = 32  # pixels: smaller images are not trained on (mmdet's CustomDataset)


@dataclass(frozen=True, eq=False)
class TrainingImages(Dataset):
    """Batches for training. An index is (epoch, indices [n])."""

    examples: Examples
    transform: Transform
    flip: bool
    seed: int = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: tuple[int, Tensor]) -> tuple[tuple[list[Tensor], list[dict[str, Any]]], Seen]:
        """((images, each [3, H, W], targets), what there is to say of them). For images that cannot be read others
        stand in."""
        epoch, indices = index
        images, targets = [], []
        seen = Seen()
        for i in indices.tolist():
            seed = derive_seed(self.seed, "image", epoch, i)
            mirrored = self.flip and np.random.RandomState(seed % 2**32).random_sample() < 0.5
            read, picture = read_or_stand_in(
                lambda index: self.examples.picture(index, seen), self.examples.name, len(self), i, seed, seen
            )
            images.append(self.transform.image(picture, mirrored))
            targets.append(self.transform.target(self.examples.truth(read), mirrored))
        return (images, targets), seen


@dataclass(frozen=True, eq=False)
class EvaluationImages(Dataset):
    """Images for evaluation, one at a time. An index is a slice of one."""

    examples: Examples
    transform: Transform

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: slice) -> tuple[tuple[Tensor, dict[str, Any]], Seen]:
        """((image [3, H, W], what is annotated in its original), what there is to say of it).

        The target holds arrays of the original image, crowds and all: image_id, size (height, width), boxes [N, 4],
        labels, area and iscrowd [N] and, where there are masks, codes. In the place of an image that cannot be read
        stands a grey one, so that every image is evaluated once.
        """
        seen, truth = Seen(), self.examples.truth(index.start)
        try:
            picture = self.examples.picture(index.start, seen)
        except Exception as error:
            seen.unreadable[self.examples.name(index.start)] = why_unreadable(error)
            picture = torch.full((3, *truth.size), GREY, dtype=torch.uint8)
        target: dict[str, Any] = {
            "image_id": np.int64(truth.image_id),
            "size": np.array(truth.size),
            "boxes": truth.boxes,
            "labels": truth.labels,
            "area": truth.areas,
            "iscrowd": truth.crowds,
        }
        if truth.codes is not None:
            target["codes"] = truth.codes
        return (self.transform.image(picture), target), seen


@dataclass(frozen=True)
class DetectionData(ReadImages):
    """Images and what is annotated in them."""

    def order(self, batch_size: int, seed: int, place: tuple[int, int], share: RankShare) -> PairedBatches:
        order = PairedBatches(len(self.train), batch_size, seed, torch.device("cpu"), *place, share=share)
        sizes = self.train.examples.sizes
        order.wide = torch.from_numpy(sizes[:, 1] > sizes[:, 0])
        return order


def _settings(run: RunSections) -> DetectionSpec:
    assert isinstance(run.task, DetectionSpec)
    return run.task


def data_key(run: RunSections) -> Hashable:
    """The settings that change what `open_data` gives: runs with equal keys share it."""
    task = _settings(run)
    return run.data, task.has_masks, task.short_side, task.long_side


def open_data(run: RunSections, folder: DataFolder, device: torch.device) -> DetectionData:
    """The images of a run. Raises RequestError where they are not what the spec says."""
    task, data, pinned = _settings(run), run.data, device.type == "cuda"
    transform = Transform(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, task.short_side, task.long_side)
    if data.in_memory:
        train, evaluation = _scenes(data, task.has_masks)
        images = TrainingImages(train, transform, bool(data.flip)), EvaluationImages(evaluation, transform)
        return DetectionData(*images, workers=0, pinned=pinned)
    folder.require(data.name, data.reader)
    place = folder.place(data.name, data.reader)
    assert isinstance(place, CocoLocation)
    splits = {split: CocoSplit.of(path, task.has_masks) for split, path in place.annotations.items()}
    check_splits(place, splits, data)
    kept, notes = trained_on(splits["train"])
    positions = {split: np.arange(len(found)) for split, found in splits.items()}
    evaluated = "evaluation"
    if data.evaluate_on == "holdout":
        evaluated = "train"
        held = positions["train"] % HOLDOUT_EVERY == HOLDOUT_EVERY - 1
        positions = {"evaluation": positions["train"][held], "train": positions["train"][~held]}
        _check_held(splits["train"], positions["evaluation"])
    positions["train"] = positions["train"][kept[positions["train"]]]
    both: tuple[str, ...] = ()
    if data.evaluate_on == "test":
        trained = (splits["train"].names[i] for i in positions["train"].tolist())
        both = in_both((place.images["train"], trained), (place.images["evaluation"], splits["evaluation"].names))
    if len(positions["train"]) < run.train.batch_size:
        raise RequestError(
            f"{place.annotations['train']}: {len(positions['train'])} images are left to train on, and "
            f"train.batch_size is {run.train.batch_size}; {'; '.join(notes)}; allowed: at least a batch of them"
        )
    examples = {
        split: CocoExamples(splits[of], place.images[of], positions[split], task.has_masks)
        for split, of in (("train", "train"), ("evaluation", evaluated))
    }
    return DetectionData(
        TrainingImages(examples["train"], transform, bool(data.flip)),
        EvaluationImages(examples["evaluation"], transform),
        data.workers,
        pinned,
        notes=tuple(f"{place.annotations['train']}: {note}" for note in notes),
        classes=splits["train"].categories,
        trained_on=both,
    )


def _scenes(data: DataSpec, masks: bool) -> tuple[SceneExamples, SceneExamples]:
    assert data.image_size is not None
    trained, evaluated = data.split_sizes()
    if data.evaluate_on == "test":
        numbers, held, split = list(range(trained)), range(evaluated), "test"
    else:
        held, split = range(HOLDOUT_EVERY - 1, trained + evaluated, HOLDOUT_EVERY), "train"
        numbers = [i for i in range(trained + evaluated) if i not in held]
    sides = data.image_size, masks
    return SceneExamples("train", numbers, *sides), SceneExamples(split, held, *sides)


def check_splits(place: CocoLocation, splits: dict[str, CocoSplit], data: DataSpec) -> None:
    """Raises RequestError where a split has another number of images or categories than the spec says, where the splits
    have other categories, where images are missing, and where nothing is annotated to be evaluated on.
    """
    for split, key in (("train", "train_images"), ("evaluation", "test_images")):
        found, wanted = len(splits[split]), getattr(data, key)
        path = place.annotations[split]
        if found != wanted:
            raise RequestError(
                f"{path}: lists {found} images, but data.{key} is {wanted}; allowed: the whole of {data.name}, or "
                f"data.{key}={found}"
            )
        missing = missing_images(place.images[split], splits[split].names)
        if len(missing) > (data.max_unreadable or 0):
            raise RequestError(
                f"{path}: {len(missing)} of its {found} images are not in {place.images[split]}, {some(missing)}; "
                f"allowed: data.max_unreadable, which is {data.max_unreadable}"
            )
    train, evaluation = splits["train"], splits["evaluation"]
    if (count := len(train.categories)) != data.classes:
        raise RequestError(
            f"{train.path}: lists {count} categories ({some(train.categories)}), but data.num_classes is "
            f"{data.classes}; allowed: data.num_classes={count}"
        )
    one, other = (dict(zip(split.category_ids, split.categories, strict=True)) for split in (train, evaluation))
    if odd := sorted(set(one.items()) ^ set(other.items())):
        number = odd[0][0]
        raise RequestError(
            f"{evaluation.path}: has other categories than {train.path}: {number} is {other.get(number)} there and "
            f"{one.get(number)} here; allowed: the same ids and names in both".replace("None", "nothing")
        )
    if not (~evaluation.crowds).any():
        raise RequestError(f"{evaluation.path}: has no box to evaluate on; allowed: annotations that are no crowds")


def _check_held(split: CocoSplit, held: NDArray[np.int64]) -> None:
    """Raises RequestError where nothing is annotated in the images that are held out."""
    image = np.repeat(np.arange(len(split)), np.diff(split.first))
    if not (~split.crowds & np.isin(image, held)).any():
        raise RequestError(
            f"{split.path}: its {len(held)} held-out images (data.evaluate_on=holdout, every {HOLDOUT_EVERY}th) have "
            f"no box to evaluate on; allowed: annotations that are no crowds"
        )


def trained_on(split: CocoSplit) -> tuple[NDArray[np.bool_], list[str]]:
    """[N]: which images are trained on, those of 32 pixels and more in which something is annotated; and what is left
    out of images and annotations, in words."""
    counts, notes = np.diff(split.first), []
    empty, small = counts == 0, split.sizes.min(axis=1) < SMALLEST_SIDE
    image = np.repeat(np.arange(len(split)), counts)
    no_box = ~is_box(split.boxes, split.areas, split.sizes[image])
    for left_out, what, of in (
        (empty, "images are not trained on, for nothing is annotated in them", split.image_ids),
        (small & ~empty, f"images are not trained on, for a side is below {SMALLEST_SIDE} pixels", split.image_ids),
        (split.crowds, "annotations are not trained on, for they are crowds", split.ids),
        (
            no_box & ~split.crowds,
            "annotations are not trained on, for their boxes are below a pixel wide or high, have no area or lie "
            "outside the image",
            split.ids,
        ),
    ):
        if left_out.any():
            ids = [str(number) for number in of[left_out]]
            notes.append(f"{len(ids)} of {len(of)} {what} (ids {some(ids)})")
    return ~empty & ~small, notes
