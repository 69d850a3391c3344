"""Scenes composed of real parts: scikit-learn's handwritten digits, enlarged and coloured, over its two photographs.

A scene follows from (seed, split, index) alone. The digits of training scenes are those that the data set `digits`
trains on, and those of evaluation scenes the ones it evaluates on: a net that starts from a run on `digits` has seen no
digit of an evaluation scene. The photographs are the same two in both splits. Holds no torch.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaformer_ablate.data import digits

SPLITS = ("train", "test")
SEED = 0  # of the data sets of scenes: they are the same for all runs
INK = 96  # of 255: from here on a pixel is the digit's
OVERLAP = 0.15  # of the smaller of two boxes, at most
PLACES = 20  # that are tried for a digit; one that fits nowhere is left out
COLOURS = 8  # that are drawn for a digit; the one that stands out most is taken


@dataclass(frozen=True)
class SceneRules:
    """How many digits a scene has, and the side of one, both at least and at most; a side is a share of the scene's.

    `brightness` is what the photograph is multiplied by: before a dark one digits are bright. As it stands a fifth of
    the pixels are of digits, of which each is large enough to be told in a map of stride 4: nets learn them in minutes.
    """

    digits: tuple[int, int] = (3, 6)
    side: tuple[float, float] = (0.3, 0.5)
    brightness: float = 0.4


RULES = SceneRules()


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it. A digit that lies over another hides its part of it."""

    image: NDArray[np.uint8]  # [3, H, W]
    labels: NDArray[np.int64]  # [N], 0 to 9
    instances: NDArray[np.uint8]  # [H, W]: 0 is the background, i + 1 the i-th digit

    @property
    def masks(self) -> NDArray[np.uint8]:
        """[N, H, W], 0 and 1: what is seen of each digit."""
        return (self.instances == np.arange(1, len(self.labels) + 1)[:, None, None]).astype(np.uint8)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """[N, 4]: left, top, right and bottom edge in pixels of what is seen of each digit."""
        found = [_extent(mask) for mask in self.masks]
        return np.array(found, dtype=np.float32).reshape(-1, 4)

    @property
    def class_map(self) -> NDArray[np.uint8]:
        """[H, W]: 0 is the background, d + 1 the digit d."""
        return np.concatenate([[0], self.labels + 1]).astype(np.uint8)[self.instances]


def scene(seed: int, split: str, index: int, size: int | tuple[int, int], rules: SceneRules = RULES) -> Scene:
    """Scene `index` of `train` or of `test`, `size` pixels per side or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    # The streams of RandomState are the same under every version of numpy; those of Generator may change.
    draw = np.random.RandomState([seed, SPLITS.index(split), index])
    picture = rules.brightness * _background(draw, height, width)
    images, classes = _digits()[split]
    labels: list[int] = []
    instances = np.zeros((height, width), dtype=np.uint8)
    boxes: list[tuple[int, int, int, int]] = []
    for _ in range(draw.randint(rules.digits[0], rules.digits[1] + 1)):
        chosen = draw.randint(len(images))
        side = draw.uniform(*rules.side) * min(height, width)
        ink = _enlarged(images[chosen], max(8, round(side)))
        place = _place(draw, ink.shape, (height, width), boxes)
        colours = draw.randint(0, 256, (COLOURS, 3))
        if place is None:
            continue
        top, left = place
        inside = slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1])
        boxes.append((left, top, left + ink.shape[1], top + ink.shape[0]))
        labels.append(int(classes[chosen]))
        instances[inside][ink >= INK] = len(labels)
        cover = np.minimum(ink[..., None].astype(np.float64) / 192, 1)
        under = picture[inside]
        colour = _outstanding(colours, under)
        picture[inside] = under * (1 - cover) + colour * cover
    image = np.rint(picture).astype(np.uint8).transpose(2, 0, 1)
    return _only_seen(np.ascontiguousarray(image), np.array(labels, dtype=np.int64), instances)


@functools.cache
def _digits() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Images and labels of each split."""
    images, labels, evaluated = digits.load()
    return {"train": (images[~evaluated], labels[~evaluated]), "test": (images[evaluated], labels[evaluated])}


@functools.cache
def _photographs() -> list[NDArray[np.uint8]]:
    """Both, [427, 640, 3]: a temple and a flower."""
    from sklearn.datasets import load_sample_images

    return [np.asarray(image) for image in load_sample_images().images]


def _background(draw: np.random.RandomState, height: int, width: int) -> NDArray[np.float64]:
    """[H, W, 3]: a part of a photograph, from a third of what fits up to all, as it is or mirrored."""
    photographs = _photographs()
    photograph = photographs[draw.randint(len(photographs))]
    fits = min(photograph.shape[0] / height, photograph.shape[1] / width) * draw.uniform(1 / 3, 1)
    h, w = max(1, int(fits * height)), max(1, int(fits * width))
    top, left = draw.randint(photograph.shape[0] - h + 1), draw.randint(photograph.shape[1] - w + 1)
    part = photograph[top : top + h, left : left + w]
    if draw.randint(2):
        part = part[:, ::-1]
    resized = Image.fromarray(np.ascontiguousarray(part)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).astype(np.float64)


def _enlarged(digit: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[h, w]: a digit of 8 x 8 at `side` pixels, without the empty rows and columns around it."""
    large = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))
    left, top, right, bottom = _extent(large > 0)
    return large[top:bottom, left:right]


def _place(
    draw: np.random.RandomState,
    shape: tuple[int, ...],
    size: tuple[int, int],
    boxes: list[tuple[int, int, int, int]],
) -> tuple[int, int] | None:
    """Top and left of a place where a digit hides little of others; None where none is found."""
    height, width = shape
    for _ in range(PLACES):
        top, left = draw.randint(size[0] - height + 1), draw.randint(size[1] - width + 1)
        if all(_shared((left, top, left + width, top + height), other) <= OVERLAP for other in boxes):
            return top, left
    return None


def _shared(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """The share of the smaller of two boxes that lies in both."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(width, 0) * max(height, 0) / min(areas)


def _outstanding(colours: NDArray[np.int64], under: NDArray[np.float64]) -> NDArray[np.float64]:
    """The colour [3] of some [n, 3] whose brightness differs most from the mean of what lies under it [h, w, 3]."""
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    difference = np.abs((colours * weights).sum(axis=1) - (under.mean(axis=(0, 1)) * weights).sum())
    return colours[difference.argmax()].astype(np.float64)


def _only_seen(image: NDArray[np.uint8], labels: NDArray[np.int64], instances: NDArray[np.uint8]) -> Scene:
    """A scene without the digits of which nothing is seen."""
    seen = np.unique(instances[instances > 0])
    number = np.zeros(len(labels) + 1, dtype=np.uint8)
    number[seen] = np.arange(1, len(seen) + 1)
    return Scene(image, labels[seen - 1], number[instances])


def _extent(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom edge of what is set in a mask [H, W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
