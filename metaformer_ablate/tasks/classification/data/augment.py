"""Augmentation of batches on the device they lie on.

What differs from sample to sample is drawn on the batch's device, what is one value per batch on the CPU, both from the
global generators: the task seeds them for each step. Images that are read one by one bring what differs with them
(`image_files.py`): of such a batch a device has only a part.
"""

from __future__ import annotations

import math
import random
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.models.memory_format import torch_format


class Augment:
    """uint8 images [B, C, H, W] and labels [B] to normalised float images and training targets.

    The order is that of timm's loader: crop, flip, mix, normalise, erase. Mixed images are rounded to whole levels, so
    that what is normalised is always a picture of 8 bits.
    """

    def __init__(
        self, spec: DataSpec, num_classes: int, mean: tuple[float, ...], std: tuple[float, ...], memory_format: str
    ):
        self.spec, self.num_classes = spec, num_classes
        self._format = torch_format(memory_format)
        self._mean = torch.tensor([255 * value for value in mean]).view(-1, 1, 1)
        self._std = torch.tensor([255 * value for value in std]).view(-1, 1, 1)

    def to(self, device: torch.device) -> Augment:
        """Moves its constants, so that no step has to."""
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    def normalise(self, images: Tensor) -> Tensor:
        """Levels 0 to 255 -> float of mean 0 and standard deviation 1 per channel over the training images."""
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        normal = ((images.float() - mean) / std).contiguous(memory_format=self._format)
        # Of one channel a batch may be both, and a convolution would take it for channels_last: strides say which.
        return normal.view(-1).view(normal.shape) if self._format == torch.contiguous_format else normal

    def __call__(self, images: Tensor, labels: Tensor, boxes: Boxes | None = None) -> tuple[Tensor, Tensor]:
        """Crop, flip, Mixup or CutMix, normalise, erase. Targets are labels [B], or shares [B, classes] when mixed.

        Images that are read one by one are cropped and flipped already, and come with the `boxes` to erase.
        """
        if self.spec.in_memory:
            if self.spec.crop_padding:
                images = random_crop(images, self.spec.crop_padding)
            if self.spec.flip is True:  # alternating flips follow from the epoch, and are done already
                mirrored = torch.rand(len(images), device=images.device) < 0.5
                images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
        targets = labels
        if self.spec.mixup or self.spec.cutmix:
            images, targets = self._mix(images, labels)
        images = self.normalise(images)
        return (images if boxes is None else erase(images, boxes)), targets

    def _mix(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        cut = bool(self.spec.cutmix)
        if self.spec.cutmix_switch is not None:  # both are on
            cut = torch.rand(()).item() < self.spec.cutmix_switch
        alpha = torch.tensor(self.spec.cutmix if cut else self.spec.mixup)
        kept = torch.distributions.Beta(alpha, alpha).sample().item()
        images, kept = cutmix(images, kept) if cut else mixup(images, kept)
        shares = F.one_hot(labels, self.num_classes).to(torch.float32)
        return images, kept * shares + (1 - kept) * shares.flip(0)


def random_crop(images: Tensor, padding: int) -> Tensor:
    """[B, C, H, W] -> [B, C, H, W]: black padding on each side, then a window at random, its own for each image."""
    batch, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, batch, 1), device=images.device)
    rows = (top + torch.arange(height, device=images.device)).unsqueeze(2)  # [B, H, 1]
    columns = (left + torch.arange(width, device=images.device)).unsqueeze(1)  # [B, 1, W]
    sample = torch.arange(batch, device=images.device).view(-1, 1, 1)
    return padded[sample, :, rows, columns].permute(0, 3, 1, 2)  # [B, H, W, C] -> [B, C, H, W]


def mixup(images: Tensor, kept: float) -> tuple[Tensor, float]:
    """Each image with its mirror in the batch (arXiv 1710.09412), as whole levels in float; the pairing is random
    because the order is."""
    levels = images.float()
    return (kept * levels + (1 - kept) * levels.flip(0)).round_(), kept


def cutmix(images: Tensor, kept: float) -> tuple[Tensor, float]:
    """A box of the mirror image in the batch (arXiv 1905.04899), and the share that was in fact kept."""
    height, width = images.shape[-2:]
    ratio = (1 - kept) ** 0.5
    centre_y, centre_x = int(torch.randint(0, height, ())), int(torch.randint(0, width, ()))
    half_y, half_x = int(height * ratio) // 2, int(width * ratio) // 2
    top, bottom = max(centre_y - half_y, 0), min(centre_y + half_y, height)
    left, right = max(centre_x - half_x, 0), min(centre_x + half_x, width)
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


# [n, 6] int64: row in the batch, top, left, height, width, and the seed of the noise, for each image that has a box.
Boxes: TypeAlias = np.ndarray


ERASED_AREA = (0.02, 1 / 3)  # of the image


ERASED_ASPECT = (math.log(0.3), math.log(1 / 0.3))


def draw_box(probability: float, height: int, width: int) -> tuple[int, int, int, int] | None:
    """top, left, height, width of a rectangle to erase, or none; drawn from Python's `random`, as timm does."""
    if random.random() > probability:
        return None
    for _ in range(10):
        area = random.uniform(*ERASED_AREA) * (height * width)
        aspect = math.exp(random.uniform(*ERASED_ASPECT))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    return None


def erase(images: Tensor, boxes: Boxes) -> Tensor:
    """Fills boxes of normalised images [B, C, H, W], in place, with noise of mean 0 and deviation 1, pixel by pixel.

    The noise of a box follows from its own seed, so that it does not depend on how devices share a batch.
    """
    generator = torch.Generator(images.device)
    for row, top, left, height, width, seed in boxes.tolist():
        generator.manual_seed(seed)
        shape = (images.shape[1], height, width)
        noise = torch.randn(shape, generator=generator, device=images.device, dtype=images.dtype)
        images[row, :, top : top + height, left : left + width] = noise
    return images
