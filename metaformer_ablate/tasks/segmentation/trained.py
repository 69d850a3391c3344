"""A trained net that is asked again: its label maps, and whether they repeat the recorded counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.unreadable import Seen
from metaformer_ablate.errors import NotAvailable
from metaformer_ablate.models.memory_format import torch_format
from metaformer_ablate.tasks.base import RecordedRun, RunSections
from metaformer_ablate.tasks.segmentation.data import SegmentationData, open_data
from metaformer_ablate.tasks.segmentation.module import count, logits_of
from metaformer_ablate.tasks.segmentation.predictions import read_predictions
from metaformer_ablate.tasks.trained import TrainedNet, evenly_spaced, made_ready


class TrainedRun(TrainedNet):
    """A trained net that is asked about evaluated images."""

    def logits(self, images: SegmentationData, index: int) -> tuple[Tensor, Tensor]:
        """Logits [1, classes, h, w] of an evaluated image, and its mask [h, w], on the device, as in training.

        Raises NotAvailable where the image cannot be read.
        """
        item, seen = images.evaluation[slice(index, index + 1)]
        if item is None or seen.unreadable:
            raise NotAvailable("; ".join([*seen.wrong, *seen.unreadable.values()]))
        image, mask = (value.to(self.device) for value in item)
        image = image.to(memory_format=torch_format(self.spec.train.memory_format))
        with self.as_trained():
            return logits_of(self.net, image, mask), mask

    def maps(self, images: SegmentationData, index: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """An evaluated image uint8 [h, w, 3], its mask and what is predicted, both uint8 [h, w]."""
        logits, mask = self.logits(images, index)
        image, _ = images.evaluation.pairs.read(index, Seen())
        predicted = logits[0].argmax(0).to(torch.uint8)
        return image.permute(1, 2, 0).numpy(), mask.cpu().numpy(), predicted.cpu().numpy()


def open_images(run: RecordedRun, spec: RunSections, folder: DataFolder) -> SegmentationData:
    """The images and masks of a run. Raises NotAvailable unless they are as many as it was evaluated on, RequestError
    where they are not what its spec says."""
    images = open_data(spec, folder, torch.device("cpu"))
    if images.sizes[1] != (evaluated := len(read_predictions(run)["truth"])):
        raise NotAvailable(
            f"{spec.data.name} in {folder.path} has {images.sizes[1]} images to evaluate, run {run.run_id} {evaluated}"
        )
    return images


def trained_run(
    run: RecordedRun, spec: RunSections, net: nn.Module, images: SegmentationData, device: torch.device, bf16: bool
) -> TrainedRun:
    """A net with its trained weights, made ready to be asked."""
    return TrainedRun(run, spec, made_ready(net, spec, device), device, bf16)


def check_weights(trained: TrainedRun, images: SegmentationData, weights: Path, same_chip: bool) -> dict[str, Any]:
    """How closely a net repeats the predictions of its run, on some of the images.

    The pixels of each true class that are right have to be the recorded ones but for rounding: of all pixels 0.1
    percent on the same chip in fp32, 1 on another, 5 in bf16. Raises NotAvailable where the weights are not those of
    the record.
    """
    recorded = read_predictions(trained.run)
    number, different, pixels = len(recorded["truth"]), 0, 0
    chosen = evenly_spaced(number)
    for index in chosen:
        logits, mask = trained.logits(images, index)
        confusion = count(logits, mask, logits.shape[1]).cpu().numpy()
        if not np.array_equal(confusion.sum(1), recorded["truth"][index]):
            raise NotAvailable(
                f"the mask of image {index} is not the one that run {trained.run.run_id} was evaluated on"
            )
        different += int(np.abs(np.diagonal(confusion) - recorded["intersection"][index]).sum())
        pixels += int(confusion.sum())
    share = 100 * different / max(pixels, 1)
    tolerance = 5.0 if trained.bf16 else 0.1 if same_chip else 1.0
    if share > tolerance:
        raise NotAvailable(
            f"{weights}: not the weights of the record: {share:.3g}% of the pixels of {len(chosen)} images are right "
            f"or wrong otherwise (allowed: {tolerance:g}%)"
        )
    return {"file": weights.name, "images": len(chosen), "pixels_different": share, "tolerance": tolerance}
