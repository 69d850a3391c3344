"""A small detector and two images for it: one with two boxes, one with none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metaformer_ablate.tasks.detection.mask_rcnn import MaskRcnn, Sizes
from metaformer_ablate.tasks.detection.pyramid import Pyramid, head_norm
from metaformer_ablate.tasks.detection.retinanet import RetinaNet

CLASSES = 3


class Body(nn.Module):
    """A convolution per stage."""

    def __init__(self, outputs: tuple[int, ...] = (0, 1, 2, 3), width: int = 16, stride: int = 4):
        super().__init__()
        self.outputs = outputs
        self.stages = nn.ModuleList(
            nn.Conv2d(width if i else 3, width, 3, stride=2 if i else stride, padding=1) for i in range(4)
        )
        self.channels = (width,) * len(outputs)
        self.strides = tuple(stride * 2**i for i in outputs)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x).relu()
            maps.append(x)
        return [maps[i] for i in self.outputs]


def retinanet(norm: str = "none", loss_images: int | None = None, **body: Any) -> RetinaNet:
    torch.manual_seed(0)
    layer = head_norm(norm)
    pyramid = Pyramid(Body((1, 2, 3), **body), 16, layer, further=True)
    options: dict[str, Any] = {"loss_images": loss_images, "memory_format": torch.contiguous_format}
    return RetinaNet(pyramid, CLASSES, anchor_scale=4, norm=layer, **options)


def mask_rcnn(norm: str = "none", loss_images: int | None = None, **body: Any) -> MaskRcnn:
    torch.manual_seed(0)
    layer = head_norm(norm)
    pyramid = Pyramid(Body(**body), 16, layer, further=False)
    options: dict[str, Any] = {"loss_images": loss_images, "memory_format": torch.contiguous_format}
    return MaskRcnn(pyramid, CLASSES, anchor_scale=8, sizes=Sizes(64, 32, 64, 16), norm=layer, **options)


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 70, 96, generator=generator), torch.randn(3, 64, 50, generator=generator)]


def targets() -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[8.0, 10, 40, 50], [50, 20, 90, 64]])
    masks = torch.zeros(2, 70, 96, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.long().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    return [
        {"boxes": boxes, "labels": torch.tensor([0, 2]), "masks": masks},
        {**empty, "masks": torch.zeros(0, 64, 50, dtype=torch.uint8)},
    ]
