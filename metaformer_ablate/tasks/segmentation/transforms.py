"""How an image and its mask become tensors, in training and in evaluation, as mmsegmentation 0.19 has it.

What differs from mmsegmentation: images are resized by torch's bilinear interpolation, not OpenCV's of fixed point (a
value differs by at most one of 255), and colours are not rounded to eight bits between the steps of the distortion.
Whatever is drawn comes from the generator that is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as colour

IGNORE = 255  # of a mask: this pixel counts for nothing


TRIES = 10  # of a crop, while one class fills too much of it


BRIGHTNESS, SPREAD, HUE = 32, (0.5, 1.5), 18  # of the 180 steps of OpenCV's hue


def fitting_size(height: int, width: int, longest: float, shortest: float) -> tuple[int, int]:
    """The largest size of this aspect whose longer side is at most `longest` and whose shorter is at most `shortest`.

    Rounded as mmcv's `rescale_size` does.
    """
    factor = min(longest / max(height, width), shortest / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """[3, h, w] float -> [3, *size], bilinear without antialiasing, as OpenCV's INTER_LINEAR."""
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """[h, w] uint8 -> `size`, nearest, as OpenCV's INTER_NEAREST."""
    if tuple(mask.shape) == size:
        return mask
    return F.interpolate(mask[None, None], size=size, mode="nearest")[0, 0]


def normalise(image: Tensor) -> Tensor:
    """[3, h, w], 0 to 255, -> ImageNet's mean at 0 and its deviation at 1."""
    mean, std = (torch.tensor(v)[:, None, None] * 255 for v in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (image - mean) / std


@dataclass(frozen=True)
class Crop:
    """A crop of (height, width) at a random place, of an image that is smaller as much as there is.

    Drawn anew up to ten times while one class has `max_share` or more of its pixels that count, or while it has none
    but one; the last one is kept whatever it has. 1 takes the first.
    """

    size: tuple[int, int]
    max_share: float = 1.0

    def __call__(self, image: Tensor, mask: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        box = self._box(mask, draw)
        if self.max_share < 1:
            for _ in range(TRIES):
                if self._mixed(mask[box]):
                    break
                box = self._box(mask, draw)
        return image[(slice(None), *box)], mask[box]

    def _box(self, mask: Tensor, draw: np.random.Generator) -> tuple[slice, slice]:
        spare = [max(have - want, 0) for have, want in zip(mask.shape, self.size, strict=True)]
        top, left = (int(draw.integers(0, room + 1)) for room in spare)
        return slice(top, top + self.size[0]), slice(left, left + self.size[1])

    def _mixed(self, mask: Tensor) -> bool:
        counts = torch.bincount(mask.flatten(), minlength=IGNORE + 1)[:IGNORE]
        return int((counts > 0).sum()) > 1 and int(counts.max()) / int(counts.sum()) < self.max_share


def pad(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Fills a normalised image [3, h, w] and its mask up to `size` at the bottom and the right: with the mean, and
    with what counts for nothing."""
    height, width = (want - have for want, have in zip(size, mask.shape, strict=True))
    if height <= 0 and width <= 0:
        return image, mask
    room = (0, max(width, 0), 0, max(height, 0))
    return F.pad(image, room), F.pad(mask, room, value=IGNORE)


def distort(image: Tensor, draw: np.random.Generator) -> Tensor:
    """[3, h, w] float, 0 to 255, RGB: brightness, contrast, saturation and hue, each with probability a half.

    Contrast comes before saturation and hue or after them, drawn too.
    """

    def half() -> bool:
        return bool(draw.integers(2))

    if half():
        image = (image + float(draw.uniform(-BRIGHTNESS, BRIGHTNESS))).clamp(0, 255)
    contrast_first = half()
    if contrast_first and half():
        image = (image * float(draw.uniform(*SPREAD))).clamp(0, 255)
    if half():
        image = saturate(image, float(draw.uniform(*SPREAD)))
    if half():
        image = turn_hue(image, int(draw.integers(-HUE, HUE)) / 180)
    if not contrast_first and half():
        image = (image * float(draw.uniform(*SPREAD))).clamp(0, 255)
    return image


def saturate(image: Tensor, factor: float) -> Tensor:
    """[3, h, w]: the S of HSV times a factor, at most 1; hue and value stay.

    With S = (V - min) / V every channel is V - (V - channel), of which the second term goes with S.
    """
    value, least = image.amax(0, keepdim=True), image.amin(0, keepdim=True)
    saturation = (value - least) / value.clamp(min=1e-6)
    gain = (saturation * factor).clamp(max=1) / saturation.clamp(min=1e-6)
    return (value - (value - image) * gain).clamp(min=0)  # which rounding may miss by a hair


def turn_hue(image: Tensor, share: float) -> Tensor:
    """[3, h, w], 0 to 255: the H of HSV moved by a share of the circle, -0.5 to 0.5."""
    return colour.adjust_hue(image / 255, share) * 255


@dataclass(frozen=True)
class TrainingTransform:
    """(image [3, h, w] uint8, mask [h, w] uint8) -> (float32 [3, H, W] normalised, uint8 [H, W]), of one size for all
    images where there is a crop or an exact size."""

    scale: tuple[int, int] | None  # longest and shortest side
    ratio: tuple[float, float] | None  # what both are multiplied by, drawn
    exact: tuple[int, int] | None  # height and width, whatever the aspect; then no scale
    crop: Crop | None
    flip: bool
    distortion: bool

    def __call__(self, image: Tensor, mask: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        size = self._size(tuple(mask.shape), draw)
        picture, mask = resize_image(image.float(), size), resize_mask(mask, size)
        if self.crop is not None:
            picture, mask = self.crop(picture, mask, draw)
        if self.flip and draw.integers(2):
            picture, mask = picture.flip(2), mask.flip(1)
        if self.distortion:
            picture = distort(picture, draw)
        picture = normalise(picture)
        return pad(picture, mask, self.crop.size) if self.crop is not None else (picture, mask)

    def _size(self, found: tuple[int, ...], draw: np.random.Generator) -> tuple[int, int]:
        height, width = found
        if self.exact is not None:
            return self.exact
        factor = float(draw.uniform(*self.ratio)) if self.ratio is not None else 1.0
        if self.scale is None:
            return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))
        # mmseg multiplies the two limits and leaves whole numbers of them
        longest, shortest = (int(limit * factor) for limit in self.scale)
        return fitting_size(height, width, longest, shortest)


@dataclass(frozen=True)
class EvaluationTransform:
    """An image [3, h, w] uint8 -> float32 [3, H, W] normalised, each side a multiple of `multiple`."""

    scale: tuple[int, int] | None
    exact: tuple[int, int] | None
    multiple: int

    def __call__(self, image: Tensor) -> Tensor:
        size = self.exact or (image.shape[1], image.shape[2])
        if self.exact is None and self.scale is not None:
            size = fitting_size(*size, *self.scale)
        # As the authors' AlignResize: once more, from what the first resizing made.
        picture = resize_image(image.float(), size)
        height, width = (-(-side // self.multiple) * self.multiple for side in size)
        return normalise(resize_image(picture, (height, width)))
