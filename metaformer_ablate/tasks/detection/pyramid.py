"""What both detectors share before their heads: batches of padded images, the backbone and its feature pyramid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork, LastLevelMaxPool

from metaformer_ablate.tasks.detection.task import MULTIPLE, padded

Norm = Callable[[int], nn.Module]
Target = dict[str, Any]


def head_norm(name: str) -> Norm | None:
    """The norm after each convolution of a pyramid and its heads; groups of 8 channels, so 32 groups of 256."""
    return None if name == "none" else _groups_of_eight


def _groups_of_eight(channels: int) -> nn.Module:
    return nn.GroupNorm(channels // 8, channels)


class Padding(GeneralizedRCNNTransform):
    """A list of images [C, H, W], normalised and resized by the loader, to one padded batch.

    Each target is given `padded`, (height, width) of its image padded by itself: what lies beyond it in the batch is
    not trained on.
    """

    def __init__(self, memory_format: torch.memory_format):
        super().__init__(min_size=0, max_size=0, image_mean=[], image_std=[], size_divisible=MULTIPLE)
        self.memory_format = memory_format

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> tuple[ImageList, list[Target] | None]:
        batch, targets = super().forward(images, targets)
        batch.tensors = batch.tensors.contiguous(memory_format=self.memory_format)
        for (height, width), target in zip(batch.image_sizes, targets or (), strict=targets is not None):
            target["padded"] = padded(height), padded(width)
        return batch, targets

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        return image, target

    def postprocess(self, result: list[Target], *sizes: Any) -> list[Target]:
        return result  # `to_original` does it


class TwoFurtherLevels(ExtraFPNBlock):
    """P6 from the last map of the backbone and P7 from P6: 3 x 3 convolutions of stride 2, no ReLU between them.

    mmdet's FPN with add_extra_convs="on_input". torchvision's LastLevelP6P7 has a ReLU before P7, and takes P5 where
    the last map happens to be as wide as the pyramid.
    """

    def __init__(self, in_channels: int, channels: int, norm: Norm | None):
        super().__init__()
        convolution = partial(nn.Conv2d, kernel_size=3, stride=2, padding=1, bias=norm is None)
        self.p6, self.p7 = (
            nn.Sequential(convolution(width, channels), *([norm(channels)] if norm else []))
            for width in (in_channels, channels)
        )

    def forward(self, p: list[Tensor], c: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:
        p6 = self.p6(c[-1])
        return [*p, p6, self.p7(p6)], [*names, "p6", "p7"]


class Pyramid(nn.Module):
    """Images [B, 3, H, W] to maps [B, channels, H / stride, W / stride] by name, the finest first.

    `body` gives a list of maps and says their `channels` and `strides` (models.backbone.Backbone). Xavier's uniform
    start in all convolutions of the pyramid, as mmdet's FPN; torchvision draws from Kaiming's.
    """

    def __init__(self, body: nn.Module, channels: int, norm: Norm | None, *, further: bool):
        super().__init__()
        self.body = body
        widths, strides = list(body.channels), tuple(body.strides)  # type: ignore[arg-type]
        extra = TwoFurtherLevels(widths[-1], channels, norm) if further else LastLevelMaxPool()
        self.fpn = FeaturePyramidNetwork(widths, channels, extra, norm)
        self.out_channels = channels
        self.body_strides = strides
        self.strides = (*strides, *(strides[-1] * 2**i for i in range(1, 3 if further else 2)))
        for module in self.fpn.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def maps(self, body_maps: list[Tensor]) -> list[Tensor]:
        """The pyramid of the backbone's maps."""
        return list(self.fpn(OrderedDict((str(i), found) for i, found in enumerate(body_maps))).values())

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict((str(i), found) for i, found in enumerate(self.maps(self.body(images))))


class Detector:
    """Images and targets to losses in training; else images to what is found in them, at their original sizes.

    Stands before a detector of torchvision in the order of inheritance.
    """

    backbone: Pyramid
    first_label = 0  # inside the detector: 1 where 0 is the background

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the backbone's blocks are computed once more in the backward pass, to save memory."""
        self.backbone.body.set_grad_checkpointing(enable)  # type: ignore[operator]

    def begin(self, targets: list[Target]) -> None:
        """Called with the targets of a step before anything is computed."""

    def forward(
        self,
        images: list[Tensor],
        targets: list[Target] | None = None,
        sizes: list[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor] | list[Target]:
        """`sizes`: (height, width) of the originals; None: the images are the originals."""
        if targets is not None:
            targets = [target | {"labels": target["labels"] + self.first_label} for target in targets]
            self.begin(targets)
        found = super().forward(images, targets)  # type: ignore[misc]
        if self.training:  # type: ignore[attr-defined]
            return found
        found = [each | {"labels": each["labels"] - self.first_label} for each in found]
        shapes = [(image.shape[-2], image.shape[-1]) for image in images]
        return [to_original(*each) for each in zip(found, shapes, sizes or shapes, strict=True)]


def to_original(found: Target, size: tuple[int, int], original: tuple[int, int]) -> Target:
    """What was found in an image of `size`, (height, width), in the pixels of the original; masks [n, H, W] bool.

    Masks come as probabilities [n, 1, M, M] within their boxes.
    """
    height, width = (after / before for after, before in zip(original, size, strict=True))
    boxes = found["boxes"] * found["boxes"].new_tensor([width, height, width, height])
    found = found | {"boxes": boxes}
    if "masks" in found:
        found["masks"] = paste(found["masks"].float(), boxes, original)
    return found


def paste(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks [n, 1, M, M] within boxes [n, 4] to masks [n, height, width] bool, of 0.5 and above.

    Bilinear at the centres of the pixels, as mmdet's `_do_paste_mask`; torchvision's rounds the boxes to pixels first.
    """
    height, width = size
    masks = torch.zeros((len(boxes), height, width), dtype=torch.bool, device=boxes.device)
    corners = torch.stack([boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1], 1).long()  # [n, 2, (x, y)]
    limits = corners.new_tensor([width, height])
    inside = torch.minimum(corners.clamp(min=0), limits)
    for i, ((left, top), (right, bottom)) in enumerate(inside.tolist()):
        if right <= left or bottom <= top:
            continue
        x0, y0, x1, y1 = boxes[i]
        x = torch.arange(left, right, device=boxes.device, dtype=boxes.dtype) + 0.5
        y = torch.arange(top, bottom, device=boxes.device, dtype=boxes.dtype) + 0.5
        y, x = torch.meshgrid((y - y0) / (y1 - y0) * 2 - 1, (x - x0) / (x1 - x0) * 2 - 1, indexing="ij")
        grid = torch.stack([x, y], -1)[None]
        found = F.grid_sample(probabilities[i : i + 1], grid, align_corners=False)[0, 0]
        masks[i, top:bottom, left:right] = found >= 0.5
    return masks
