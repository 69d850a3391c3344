"""From settings to a detector, and what of it is counted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.backbone import build_backbone
from metaformer_ablate.models.memory_format import torch_format
from metaformer_ablate.tasks.base import CostPart, RunSections
from metaformer_ablate.tasks.detection.mask_rcnn import BoxAndMaskHeads, MaskRcnn, Sizes
from metaformer_ablate.tasks.detection.pyramid import Pyramid, head_norm
from metaformer_ablate.tasks.detection.retinanet import RetinaNet
from metaformer_ablate.tasks.detection.task import MULTIPLE, DetectionSpec, net_size, padded
from metaformer_ablate.training.compute import conditions
from metaformer_ablate.training.spec import TrainSpec

# Stages whose maps the pyramid stands on: RetinaNet's leaves out the finest (mmdet: start_level=1).
OUTPUTS = {"retinanet": (1, 2, 3), "mask_rcnn": (0, 1, 2, 3)}


def build_net(run: RunSections, kernels: str = "torch", device: torch.device | None = None) -> RetinaNet | MaskRcnn:
    """The detector of a run, on the CPU, its weights drawn from the seed (`models.backbone.build_backbone`).

    Components of the user's own are tried on `device`, if it is given.
    """
    task, channels = _task(run), DATASETS[run.data.name].channels
    outputs = OUTPUTS[task.head]
    _check_groups(task, run.train)
    options: dict[str, Any] = {"seed": run.seed, "kernels": kernels, "under": conditions(run.train, device)}
    body = build_backbone(run.model, channels, net_size(run), outputs=outputs, **options)
    _check_strides(body.strides)
    norm = head_norm(task.head_norm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(run.seed, "head"))  # not the numbers that the backbone has drawn
        pyramid = Pyramid(body, task.fpn_channels, norm, further=not task.has_masks)
        last = torch_format(run.train.memory_format)
        if not task.has_masks:
            return RetinaNet(
                pyramid,
                run.data.classes,
                anchor_scale=task.scale_of_anchors,
                norm=norm,
                loss_images=task.loss_images,
                memory_format=last,
            )
        assert task.proposals and task.box_samples and task.fc_width and task.mask_width
        return MaskRcnn(
            pyramid,
            run.data.classes,
            anchor_scale=task.scale_of_anchors,
            sizes=Sizes(task.proposals, task.box_samples, task.fc_width, task.mask_width),
            norm=norm,
            loss_images=task.loss_images,
            memory_format=last,
        )


def _task(run: RunSections) -> DetectionSpec:
    assert isinstance(run.task, DetectionSpec)
    return run.task


def _check_groups(task: DetectionSpec, train: TrainSpec) -> None:
    """A group of images that share a divisor is never parted, or the loss would depend on how a batch is taken."""
    batch_size, parts = train.batch_size, train.world * train.accumulation
    if task.loss_images is not None and batch_size % task.loss_images:
        raise RequestError(
            f"train.batch_size is {batch_size}, but task.loss_images is {task.loss_images}; allowed: a batch of whole "
            f"groups of so many images, or null"
        )
    if parts > 1 and (batch_size // parts) % (task.loss_images or batch_size):
        wanted = "null" if task.loss_images is None else str(task.loss_images)
        raise RequestError(
            f"task.loss_images is {wanted}, but train.devices, train.nodes and train.micro_batch take a batch of "
            f"{batch_size} in parts of {batch_size // parts}; allowed: parts of whole groups of images that share a "
            f"divisor of the loss{', here the whole batch' if task.loss_images is None else ''}"
        )


def _check_strides(strides: tuple[int, ...]) -> None:
    """The pyramid's levels, anchors and regions stand on strides that double, each a power of two."""
    doubling = all(two == 2 * one for one, two in pairwise(strides))
    if not doubling or strides[0] & (strides[0] - 1) or strides[-1] > MULTIPLE:
        raise RequestError(
            f"the maps of the backbone have strides {', '.join(map(str, strides))}; allowed in detection: powers of "
            f"two up to {MULTIPLE}, each twice the one before"
        )


def image_shape(run: RunSections) -> tuple[int, int, int]:
    """Channels, height and width of an image that costs are counted for, padded as a batch is.

    Where sizes vary, the short side and a long side of 1.6 times it, 800 x 1280 for COCO, as mmdet counts.
    """
    task, channels, size = _task(run), DATASETS[run.data.name].channels, net_size(run)
    if size is None:
        assert task.short_side is not None and task.long_side is not None
        size = padded(task.short_side), padded(min(task.long_side, task.short_side * 8 // 5))
    return channels, *size


class _Neck(nn.Module):
    def __init__(self, pyramid: Pyramid):
        super().__init__()
        self.pyramid = pyramid

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.pyramid.maps(list(maps)))


class _DenseHead(nn.Module):
    """RetinaNet's head, or that of the proposals, on all levels."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        found = self.head(list(maps))
        return tuple(found.values()) if isinstance(found, dict) else tuple(x for levels in found for x in levels)


def cost_parts(net: RetinaNet | MaskRcnn, run: RunSections) -> list[CostPart]:
    """Backbone, neck and dense head for one image; of Mask R-CNN its two further heads for so many regions.

    What follows the heads (anchors, NMS, RoIAlign) is not counted.
    """
    image = torch.zeros(1, *image_shape(run))
    with torch.no_grad():
        maps = tuple(net.backbone.body(image))
        levels = tuple(net.backbone.maps(list(maps)))
    parts = [CostPart("backbone", net.backbone.body, (image,)), CostPart("neck", _Neck(net.backbone), maps)]
    if isinstance(net, RetinaNet):
        return [*parts, CostPart("head", _DenseHead(net.head), levels)]
    heads, found = net.roi_heads, 100
    assert isinstance(heads, BoxAndMaskHeads)
    task, channels = _task(run), net.backbone.out_channels
    assert task.proposals is not None
    boxes = nn.Sequential(heads.box_head, heads.box_predictor)
    return [
        *parts,
        CostPart("proposal head", _DenseHead(net.rpn.head), levels),
        CostPart(f"box head, {task.proposals} regions", boxes, (torch.zeros(task.proposals, channels, 7, 7),)),
        CostPart(
            f"mask head, {found} regions",
            nn.Sequential(heads.mask_head, heads.mask_predictor),
            (torch.zeros(found, channels, 14, 14),),
        ),
    ]
