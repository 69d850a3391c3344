"""A trained classifier that is asked again: its images, its logits, whether they repeat the recorded predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import NotAvailable
from metaformer_ablate.tasks.base import RecordedRun, RunSections
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.data.in_memory import InMemoryData, load_images
from metaformer_ablate.tasks.classification.predictions import Arrays, read_predictions, same_images
from metaformer_ablate.tasks.trained import TrainedNet, made_ready

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


def open_images(run: RecordedRun, spec: RunSections, folder: DataFolder) -> InMemoryData:
    """The images of a run. Raises NotAvailable unless their labels are those that it was evaluated on, RequestError
    where a file cannot be read."""
    images = load_images(spec.data, folder)
    if not same_images({"label": images.evaluation.labels.numpy()}, read_predictions(run)):
        raise NotAvailable(f"the labels of {spec.data.name} in {folder.path} are not those of run {run.run_id}")
    return images


def trained_run(
    run: RecordedRun, spec: RunSections, net: nn.Module, images: InMemoryData, device: torch.device, bf16: bool
) -> TrainedRun:
    """A net with its trained weights, made ready to be asked."""
    augment = Augment(spec.data, spec.data.classes, images.mean, images.std, spec.train.memory_format)
    return TrainedRun(run, spec, made_ready(net, spec, device), device, bf16, augment=augment)


def check_weights(trained: TrainedRun, images: InMemoryData, weights: Path, same_chip: bool) -> dict[str, Any]:
    """How closely a net repeats the predictions of its run.

    On every evaluation image it has to give the recorded class the recorded confidence, as its largest. The tolerance
    is one of rounding: 0.1 points of confidence on the same chip in fp32, 2 on another, 10 in bf16. Raises NotAvailable
    where the weights are not those of the record.
    """
    recorded = read_predictions(trained.run)
    shares = trained.logits(images.evaluation.images).softmax(dim=1).numpy().astype(np.float64)
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
