"""A trained classifier that is asked again: its images, its logits, whether they repeat the recorded predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metaformer_ablate.data.datasets import DATASETS, data_name
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.layouts import DatasetLocation
from metaformer_ablate.data.unreadable import Seen
from metaformer_ablate.errors import NotAvailable
from metaformer_ablate.tasks.base import RecordedRun, RunSections
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.data.image_files import open_image_files
from metaformer_ablate.tasks.classification.data.in_memory import load_images
from metaformer_ablate.tasks.classification.predictions import Arrays, read_predictions, same_images
from metaformer_ablate.tasks.trained import TrainedNet, evenly_spaced, made_ready

ASKED = 1000  # images of a set on disk that trained nets are asked about, held in memory for it
BATCH = 512  # of the evaluation loader: the same bits as in training need the same batches


@dataclass(frozen=True, kw_only=True)
class TrainedRun(TrainedNet):
    """A trained net with what its images go through before it sees them."""

    augment: Augment

    def logits(self, images: Tensor) -> Tensor:
        """uint8 images [N, C, H, W] to logits [N, classes] in fp32 on the CPU, computed as in training."""
        parts = []
        with self.as_trained():
            for start in range(0, len(images), BATCH):
                batch = images[start : start + BATCH].to(self.device)
                parts.append(self.net(self.augment.normalise(batch)).float().cpu())
        return torch.cat(parts)


@dataclass(frozen=True)
class EvaluatedImages:
    """The images that a run was evaluated on, as uint8 [n, C, H, W]: held in memory, or read as they are asked for.

    `asked` are those that trained nets are asked about: all that are held, or of those on disk at most ASKED, evenly
    spaced.
    """

    labels: NDArray[np.int64]  # [N]
    at: Callable[[Sequence[int]], Tensor]
    asked: NDArray[np.int64]
    held: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    file_of: Callable[[int], str | None]  # the file of an image, where it is one
    place: DatasetLocation | None  # of a set that lies in a folder

    @cached_property
    def asked_images(self) -> Tensor:
        return self.at(self.asked.tolist())

    @property
    def asked_labels(self) -> NDArray[np.int64]:
        return self.labels[self.asked]


def open_images(run: RecordedRun, spec: RunSections, folder: DataFolder) -> EvaluatedImages:
    """The images of a run. Raises NotAvailable unless their labels are those that it was evaluated on, RequestError
    where a file cannot be read."""
    name = spec.data.name
    place = folder.place(name) if DATASETS[name].in_folder else None
    assert place is None or isinstance(place, DatasetLocation)
    if spec.data.in_memory:
        data = load_images(spec.data, folder)
        pixels, files = data.evaluation.images, data.files
        images = EvaluatedImages(
            labels=data.evaluation.labels.numpy(),
            at=lambda places: pixels if len(places) == len(pixels) else pixels[list(places)],
            asked=np.arange(len(pixels)),
            held=True,
            mean=data.mean,
            std=data.std,
            file_of=lambda index: files[index] if files else None,
            place=place,
        )
    else:
        files_of = open_image_files(spec.data, folder, torch.device("cpu"))
        evaluation, number = files_of.evaluation, len(files_of.evaluation)
        images = EvaluatedImages(
            labels=evaluation.labels,
            at=lambda places: evaluation.at(places, Seen()),
            asked=np.unique(np.linspace(0, number - 1, min(ASKED, number)).astype(int)),
            held=False,
            mean=files_of.mean,
            std=files_of.std,
            file_of=evaluation.name,
            place=place,
        )
    if not same_images({"label": images.labels}, read_predictions(run)):
        raise NotAvailable(
            f"the labels of {data_name(run.spec()['data'])} in {folder.path} are not those of run {run.run_id}"
        )
    return images


def trained_run(
    run: RecordedRun, spec: RunSections, net: nn.Module, images: EvaluatedImages, device: torch.device, bf16: bool
) -> TrainedRun:
    """A net with its trained weights, made ready to be asked."""
    augment = Augment(spec.data, spec.data.classes, images.mean, images.std, spec.train.memory_format)
    return TrainedRun(run, spec, made_ready(net, spec, device), device, bf16, augment=augment)


def check_weights(trained: TrainedRun, images: EvaluatedImages, weights: Path, same_chip: bool) -> dict[str, Any]:
    """How closely a net repeats the predictions of its run.

    On every evaluation image (of a set on disk on CHECKED of them) it has to give the recorded class the recorded
    confidence, as its largest. The tolerance is one of rounding: 0.1 points of confidence on the same chip in fp32, 2
    on another, 10 in bf16. Raises NotAvailable where the weights are not those of the record.
    """
    places = images.asked if images.held else np.array(evenly_spaced(len(images.labels)))
    recorded = {name: values[places] for name, values in read_predictions(trained.run).items()}
    shares = trained.logits(images.at(places.tolist())).softmax(dim=1).numpy().astype(np.float64)
    repeated, difference = _agreement(shares, recorded)
    number = len(recorded["predicted"])
    tolerance = 10.0 if trained.bf16 else 0.1 if same_chip else 2.0
    if not difference <= tolerance:
        raise NotAvailable(
            f"{weights}: not the weights of the record: {number - repeated:,} of {number:,} predictions are others, "
            f"and a confidence differs by {difference:.3g} points (allowed: {tolerance:g})"
        )
    return {
        "file": weights.name,
        "images": number,
        "predictions_repeated": repeated,
        "largest_confidence_difference": difference,
        "tolerance": tolerance,
    }


def _agreement(shares: np.ndarray, recorded: Arrays) -> tuple[int, float]:
    """How many predictions [N, classes] are the recorded ones, and the largest difference of a confidence in points."""
    predicted, confidence = recorded["predicted"], recorded["confidence"]
    of_recorded = np.abs(shares[np.arange(len(predicted)), predicted] - confidence)
    of_largest = np.abs(shares.max(axis=1) - confidence)
    difference = 100 * float(np.maximum(of_recorded, of_largest).max())  # NaN stays NaN
    return int((shares.argmax(axis=1) == predicted).sum()), difference
