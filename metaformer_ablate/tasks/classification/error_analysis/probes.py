"""Probes: how a trained model's accuracy changes as the evaluation images are changed, a little to a lot.

A probe maps uint8 images [N, C, H, W] and a severity to uint8 images of the same shape, and gives the images themselves
at the severity `clean`. Where it uncovers pixels, these take the median of the picture's own border, per channel: black
around Fashion-MNIST, about the colour of the background in a photograph. To add one: a function and a line in PROBES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as T

from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.statistics.images import mcnemar
from metaformer_ablate.statistics.stats import holm
from metaformer_ablate.tasks.classification.error_analysis.accuracy import accuracy, by_class
from metaformer_ablate.tasks.classification.error_analysis.comparison import MCNEMAR
from metaformer_ablate.tasks.classification.trained import EvaluatedImages, TrainedRun
from metaformer_ablate.tasks.error_analysis.runs import facts_of_run, side_of


@dataclass(frozen=True)
class Probe:
    """`about` and `unit` are for readers; `severities` ascend and hold `clean`."""

    about: str
    unit: str
    severities: tuple[float, ...]
    clean: float
    change: Callable[[Tensor, float], Tensor]


def background(images: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 1, 1]: the median over the pixels at the border of each picture."""
    edges = [images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]]
    return torch.cat(edges, dim=2).median(dim=2).values[:, :, None, None]


def _resized(images: Tensor, side: int) -> Tensor:
    return T.resize(images, [side, side], InterpolationMode.BILINEAR, antialias=True)


def scale(images: Tensor, factor: float) -> Tensor:
    """The picture at `factor` times its size, cut to the frame or put in its middle before the background."""
    side = images.shape[-1]
    new = max(1, round(side * factor))
    resized = _resized(images, new)
    if new >= side:
        start = (new - side) // 2
        return resized[:, :, start : start + side, start : start + side].contiguous()
    start = (side - new) // 2
    framed = background(images).expand_as(images).clone()
    framed[:, :, start : start + new, start : start + new] = resized
    return framed


def resolution(images: Tensor, factor: float) -> Tensor:
    """The picture made smaller by `factor` and large again: the detail that `scale` loses, at the same size."""
    side = images.shape[-1]
    return _resized(_resized(images, max(1, round(side * factor))), side)


def crop(images: Tensor, kept: float) -> Tensor:
    """Only the middle, `kept` of the side; the rest is background."""
    side = images.shape[-1]
    inside = max(1, round(side * kept))
    start = (side - inside) // 2
    middle = slice(start, start + inside)
    framed = background(images).expand_as(images).clone()
    framed[:, :, middle, middle] = images[:, :, middle, middle]
    return framed


def shift(images: Tensor, share: float) -> Tensor:
    """Moved by a share of the side: image i to the right, down, left or up by i modulo 4."""
    side = images.shape[-1]
    by = min(side, round(side * share))
    moved = background(images).expand_as(images).clone()
    if by < side:
        kept, gone = slice(0, side - by), slice(by, side)
        moved[0::4, :, :, gone] = images[0::4, :, :, kept]
        moved[1::4, :, gone, :] = images[1::4, :, kept, :]
        moved[2::4, :, :, kept] = images[2::4, :, :, gone]
        moved[3::4, :, kept, :] = images[3::4, :, gone, :]
    return moved


def rotate(images: Tensor, degrees: float) -> Tensor:
    """Turned about the middle, image i to the left or to the right by i modulo 2."""
    if degrees == 0:
        return images
    inside = torch.full_like(images[:1, :1], 255)
    turned = background(images).expand_as(images).float()
    for parity, angle in enumerate((degrees, -degrees)):
        part = T.rotate(images[parity::2].float(), angle, InterpolationMode.BILINEAR)
        covered = T.rotate(inside.float(), angle, InterpolationMode.BILINEAR) / 255
        # Bilinear at the edge: what is not covered by the picture is background, in the same shares.
        turned[parity::2] = part + (1 - covered) * turned[parity::2]
    return turned.round().clamp(0, 255).to(torch.uint8)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur; sigma in percent of the side."""
    pixels = sigma / 100 * images.shape[-1]
    reach = min(int(3 * pixels + 1), images.shape[-1] - 1)  # what reflects at the border is less than a side
    return T.gaussian_blur(images, [2 * reach + 1] * 2, [pixels] * 2) if pixels else images


def noise(images: Tensor, deviation: float) -> Tensor:
    """Gaussian noise of a standard deviation in percent of the range, drawn once and for all."""
    generator = torch.Generator().manual_seed(derive_seed(0, "noise"))
    drawn = torch.randn(images.shape, generator=generator) * (deviation / 100 * 255)
    return (images + drawn).round().clamp(0, 255).to(torch.uint8)


PROBES: dict[str, Probe] = {
    "scale": Probe(
        "the picture smaller, before its background, or larger, cut at the frame",
        "size (1: as it is)",
        (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 1.75, 2.0),
        1.0,
        scale,
    ),
    "resolution": Probe(
        "the picture made smaller and then as large as before: it loses detail, and no size",
        "size in between (1: as it is)",
        (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        1.0,
        resolution,
    ),
    "crop": Probe(
        "only the middle of the picture, the rest as its background",
        "share of the side that is kept",
        (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        1.0,
        crop,
    ),
    "shift": Probe(
        "moved right, down, left or up, for a quarter of the images each",
        "share of the side",
        (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
        0.0,
        shift,
    ),
    "rotate": Probe(
        "rotated about the middle, left or right for half of the images each",
        "degrees",
        (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0),
        0.0,
        rotate,
    ),
    "blur": Probe(
        "blurred by a Gaussian",
        "standard deviation, percent of the side",
        (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0),
        0.0,
        blur,
    ),
    "noise": Probe(
        "Gaussian noise added, the same for every model",
        "standard deviation, percent of the range",
        (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0),
        0.0,
        noise,
    ),
}


def curve(name: str, runs: Sequence[tuple[TrainedRun, EvaluatedImages]]) -> dict[str, Any]:
    """Accuracy against severity, over all images and per class, of one run or of two on the same images.

    Of two, `against` counts at each severity the images that only one of them gets right, with McNemar's exact p,
    corrected by Holm over the severities.
    """
    probe = PROBES[name]
    rights = [[_right(run, data, probe, severity) for severity in probe.severities] for run, data in runs]
    against = _paired(probe, *rights) if len(rights) == 2 else None
    described = [
        {
            **side_of(trained.run),
            "points": [
                {
                    "severity": severity,
                    **accuracy(right),
                    "classes": by_class(right, data.asked_labels, facts),
                }
                for severity, right in zip(probe.severities, found, strict=True)
            ],
        }
        for (trained, data), found in zip(runs, rights, strict=True)
        for facts in [facts_of_run(trained.run)]
    ]
    return {
        "about": probe.about,
        "unit": probe.unit,
        "clean": probe.clean,
        "images": len(runs[0][1].asked),
        "of": len(runs[0][1].labels),
        "runs": described,
        "against": against,
        "method": f"{MCNEMAR}; Holm over the severities" if against else None,
    }


def _right(trained: TrainedRun, data: EvaluatedImages, probe: Probe, severity: float) -> NDArray[np.bool_]:
    """[N]: whether each image, changed, is right."""
    logits = trained.logits(probe.change(data.asked_images, severity))
    return logits.argmax(dim=1).numpy() == data.asked_labels


def _paired(
    probe: Probe, first: Sequence[NDArray[np.bool_]], second: Sequence[NDArray[np.bool_]]
) -> list[dict[str, Any]]:
    pairs = [(int((a & ~b).sum()), int((b & ~a).sum())) for a, b in zip(first, second, strict=True)]
    corrected = holm([mcnemar(*pair) for pair in pairs])
    return [
        {"severity": severity, "only_first": a, "only_second": b, "p": p}
        for severity, (a, b), p in zip(probe.severities, pairs, corrected, strict=True)
    ]


def examples(name: str, images: Tensor) -> list[tuple[float, Any]]:
    """(severity, [N, C, H, W] uint8 array) for each severity: what the model was shown."""
    probe = PROBES[name]
    return [(severity, np.asarray(probe.change(images, severity))) for severity in probe.severities]
