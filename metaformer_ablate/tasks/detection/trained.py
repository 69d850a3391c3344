"""A trained detector that is asked again: its detections, and whether they repeat the recorded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import NotAvailable
from metaformer_ablate.tasks.base import RecordedRun, RunSections
from metaformer_ablate.tasks.detection.data import DetectionData, open_data
from metaformer_ablate.tasks.detection.predictions import per_image_parts, read_predictions
from metaformer_ablate.tasks.trained import TrainedNet, evenly_spaced, made_ready


class TrainedRun(TrainedNet):
    """A trained net that is asked about evaluated images."""

    def detections(self, images: DetectionData, index: int) -> dict[str, Tensor]:
        """boxes [n, 4], scores [n], labels [n] and perhaps masks of an evaluated image, as in training.

        Raises NotAvailable where the image cannot be read.
        """
        (image, target), seen = images.evaluation[slice(index, index + 1)]
        if seen.unreadable:
            raise NotAvailable("; ".join(seen.unreadable.values()))
        with self.as_trained():
            (found,) = self.net([image.to(self.device)], sizes=[tuple(target["size"].tolist())])
        return found


def open_images(run: RecordedRun, spec: RunSections, folder: DataFolder) -> DetectionData:
    """The images of a run with their annotations. Raises NotAvailable unless they are those that it was evaluated on,
    RequestError where they are not what its spec says."""
    images, recorded = open_data(spec, folder, torch.device("cpu")), read_predictions(run)
    examples = images.evaluation.examples
    truths = [examples.truth(i) for i in range(len(examples))]
    same = [truth.image_id for truth in truths] == recorded["image_id"].tolist() and np.array_equal(
        np.concatenate([truth.boxes for truth in truths]), recorded["truth_box"]
    )
    if not same:
        raise NotAvailable(f"the annotations of {spec.data.name} in {folder.path} are not those of run {run.run_id}")
    return images


def trained_run(
    run: RecordedRun, spec: RunSections, net: nn.Module, images: DetectionData, device: torch.device, bf16: bool
) -> TrainedRun:
    """A net with its trained weights, made ready to be asked."""
    return TrainedRun(run, spec, made_ready(net, spec, device), device, bf16)


def check_weights(trained: TrainedRun, images: DetectionData, weights: Path, same_chip: bool) -> dict[str, Any]:
    """How closely a net repeats the predictions of its run, on some of the images.

    A detection is repeated where one of its label has its score and corners but for rounding: a hundredth and a pixel;
    a tenth and four pixels in bf16. Where scores are close, other boxes may be left over of those that overlap: of all
    detections 1 percent on the same chip in fp32, 5 on another, 20 in bf16. Raises NotAvailable where the weights are
    not those of the record.
    """
    recorded = read_predictions(trained.run)
    parts = list(per_image_parts(recorded))
    number, repeated, detections = len(parts), 0, 0
    apart, pixels = (0.1, 4.0) if trained.bf16 else (0.01, 1.0)
    chosen = evenly_spaced(number)
    for index in chosen:
        part, found = parts[index], trained.detections(images, index)
        boxes, scores, labels = (found[name].float().cpu().numpy() for name in ("boxes", "scores", "labels"))
        near = np.abs(part["box"][:, None] - boxes[None]).max(axis=-1) <= pixels
        near &= np.abs(part["score"][:, None] - scores[None]) <= apart
        near &= part["label"][:, None] == labels[None]
        repeated += int(near.any(axis=1).sum())
        detections += max(len(part["box"]), len(boxes))
    share = 100 * (1 - repeated / detections) if detections else 0.0
    tolerance = 20.0 if trained.bf16 else 1.0 if same_chip else 5.0
    if share > tolerance:
        raise NotAvailable(
            f"{weights}: not the weights of the record: {share:.3g}% of the detections in {len(chosen)} images are "
            f"others (allowed: {tolerance:g}%)"
        )
    return {
        "file": weights.name,
        "images": len(chosen),
        "detections": detections,
        "repeated": repeated,
        "tolerance": tolerance,
    }
