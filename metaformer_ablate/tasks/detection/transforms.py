"""What images and their boxes go through before a detector sees them: resized, perhaps mirrored, normalised.

As mmdet 2.19 has it in the paper's configs (LoadAnnotations, Resize with `keep_ratio`, RandomFlip, Normalize). Images
are padded where they are put together in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from metaformer_ablate.data import run_lengths


@dataclass(frozen=True)
class Truth:
    """What is annotated in an image: boxes [N, 4] (left, top, right, bottom in its pixels) and what belongs to each."""

    image_id: int
    size: tuple[int, int]  # of the image, (height, width)
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]  # [N], from 0
    areas: NDArray[np.float64]  # [N]
    crowds: NDArray[np.bool_]  # [N]
    codes: list[bytes] | None = None  # [N] run-length codes of masks; None without masks

    def take(self, chosen: NDArray[np.bool_]) -> Truth:
        """Some of the entries."""
        codes = None if self.codes is None else [code for code, taken in zip(self.codes, chosen, strict=True) if taken]
        return Truth(
            self.image_id,
            self.size,
            self.boxes[chosen],
            self.labels[chosen],
            self.areas[chosen],
            self.crowds[chosen],
            codes,
        )


def is_box(boxes: NDArray[np.float64], areas: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[N]: whether a box of an image of `sizes` (height, width; [N, 2]) is one to train on: at least a pixel wide and
    high, of something with an area, and not wholly outside (mmdet's CocoDataset)."""
    lower = np.minimum(boxes[:, 2:], sizes[:, ::-1])
    inside = (lower - np.maximum(boxes[:, :2], 0)).min(axis=1, initial=np.inf) > 0
    return inside & (areas > 0) & ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)


def resized(size: tuple[int, int], short_side: int, long_side: int) -> tuple[int, int]:
    """(height, width) of an image as large as both sides allow, in its own ratio: rounded as mmcv's rescale_size."""
    scale = min(long_side / max(size), short_side / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


@dataclass(frozen=True)
class Transform:
    """uint8 images [3, H, W] to normalised ones of the size that the sides say, all None: as they are."""

    mean: tuple[float, ...]  # of pixels scaled to 0..1
    std: tuple[float, ...]
    short_side: int | None = None
    long_side: int | None = None

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) that an image of such a size is given."""
        if self.short_side is None or self.long_side is None:
            return size
        return resized(size, self.short_side, self.long_side)

    def image(self, picture: Tensor, mirrored: bool = False) -> Tensor:
        """Bilinear as OpenCV's, without antialiasing."""
        image = picture[None].float()
        if (size := self.size((picture.shape[-2], picture.shape[-1]))) != tuple(picture.shape[-2:]):
            image = F.interpolate(image, size, mode="bilinear", align_corners=False)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        image = (image[0] / 255 - mean) / std
        return image.flip(-1) if mirrored else image

    def target(self, truth: Truth, mirrored: bool = False) -> dict[str, Any]:
        """`boxes` [N, 4] float, `labels` [N] int64 and, with codes, `masks` [N, H, W] uint8, of what is trained on:
        neither crowds nor what is no box (`is_box`)."""
        truth = truth.take(~truth.crowds & is_box(truth.boxes, truth.areas, np.array([truth.size] * len(truth.boxes))))
        height, width = self.size(truth.size)
        scale = np.array([width / truth.size[1], height / truth.size[0]] * 2)
        boxes = (truth.boxes * scale).clip(0, [width, height] * 2)
        # Of a box that grazes the edge so little may be left that it is none in float32.
        seen = (boxes[:, 2:] - boxes[:, :2] >= 1e-3).all(axis=1)
        truth, boxes = truth.take(seen), boxes[seen]
        if mirrored:
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        target: dict[str, Any] = {
            "boxes": torch.from_numpy(boxes).float().reshape(-1, 4),
            "labels": torch.from_numpy(truth.labels),
        }
        if truth.codes is not None:
            masks = torch.from_numpy(run_lengths.decode(truth.codes, truth.size))
            if (height, width) != truth.size and len(masks):
                masks = F.interpolate(masks[None], (height, width), mode="nearest")[0]
            target["masks"] = (
                masks.reshape(-1, height, width).flip(-1) if mirrored else masks.reshape(-1, height, width)
            )
        return target
