"""Semantic FPN (Kirillov et al. 2019) on any backbone, as mmsegmentation 0.19 has it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.models.backbone import Backbone, build_backbone
from metaformer_ablate.tasks.base import CostPart, RunSections
from metaformer_ablate.tasks.segmentation.task import counted_size, embedded_size, net_size, settings_of
from metaformer_ablate.training.compute import conditions


class Neck(FeaturePyramidNetwork):
    """Feature maps of several strides -> as many maps of one width [B, channels, h, w].

    torchvision's FPN: 1 x 1 convolutions, sums with the map above enlarged to the size of the one below by its
    nearest values, 3 x 3 convolutions; with biases, no norm and no activation, as mmsegmentation's. It is given lists.
    """

    def __init__(self, widths: Sequence[int], channels: int):
        super().__init__(list(widths), channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:  # type: ignore[override]
        return list(super().forward({str(i): feature for i, feature in enumerate(maps)}).values())


class Head(nn.Module):
    """Maps of the neck -> logits [B, classes, h, w] at the size of the first.

    Each map goes through convolutions 3 x 3, norm and ReLU: one where its stride is that of the first map, and one per
    doubling above it, each followed by bilinear enlarging by 2. Then the sum, dropout of channels and a 1 x 1
    convolution. `groups` of GroupNorm; None for batch norm (which several devices synchronise).
    """

    def __init__(
        self, strides: Sequence[int], in_channels: int, channels: int, classes: int, dropout: float, groups: int | None
    ):
        super().__init__()
        self.branches = nn.ModuleList()
        for stride in strides:
            doublings = round(math.log2(stride / strides[0]))
            branch = nn.Sequential()
            for i in range(max(1, doublings)):
                norm = nn.BatchNorm2d(channels) if groups is None else nn.GroupNorm(groups, channels)
                convolution = nn.Conv2d(channels if i else in_channels, channels, 3, padding=1, bias=False)
                branch.extend([convolution, norm, nn.ReLU(inplace=True)])
                if doublings:
                    branch.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.branches.append(branch)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        first, *others = (branch(feature) for branch, feature in zip(self.branches, maps, strict=True))
        for other in others:
            first = first + enlarge(other, (first.shape[2], first.shape[3]))
        return self.classifier(self.dropout(first))


class SemanticFPN(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes, h, w] at the stride of the first stage."""

    def __init__(self, backbone: Backbone, neck: Neck, head: Head):
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.neck(self.backbone(images)))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the backbone's activations are computed once more in the backward pass, to save memory."""
        self.backbone.set_grad_checkpointing(enable)


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, *size], bilinear."""
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def initialise(neck: Neck, head: Head) -> None:
    """Draws the weights as mmsegmentation's constructors do: Kaiming's normal by what goes out (fan_out, ReLU) in all
    convolutions but the classifier's, which is normal of 0.01; biases 0."""
    for module in (*neck.modules(), *head.modules()):
        if isinstance(module, nn.Conv2d):
            if module is head.classifier:
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build_net(run: RunSections, kernels: str = "torch", device: torch.device | None = None) -> SemanticFPN:
    """The net of a run, on the CPU: the backbone as `build_backbone` makes it, neck and head drawn from the seed.

    Components of the user's own are tried on `device`, if it is given. Raises RequestError as `build_backbone` does.
    """
    task, under = settings_of(run), conditions(run.train, device)
    channels = DATASETS[run.data.name].channels
    options: dict[str, Any] = {"seed": run.seed, "kernels": kernels, "under": under}
    backbone = build_backbone(run.model, channels, net_size(run), embedded=embedded_size(run), **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(run.seed, "head"))  # not the numbers that the backbone has drawn
        neck = Neck(backbone.channels, task.fpn_channels)
        head = Head(
            backbone.strides,
            task.fpn_channels,
            task.head_channels,
            run.data.classes,
            task.head_dropout,
            task.head_groups,
        )
        initialise(neck, head)
    return SemanticFPN(backbone, neck, head)


def image_shape(run: RunSections) -> tuple[int, int, int]:
    """Channels, height and width of an image that costs are counted for: a training crop, or else an evaluated one."""
    return (DATASETS[run.data.name].channels, *counted_size(run))


def cost_parts(net: nn.Module, run: RunSections) -> list[CostPart]:
    """Backbone, neck and head, each for what the one before makes of an image."""
    assert isinstance(net, SemanticFPN)
    images = torch.zeros(1, *image_shape(run))
    with torch.no_grad():
        maps = net.backbone(images)
        levels = net.neck(maps)
    parts = (("backbone", net.backbone, images), ("neck", net.neck, maps), ("head", net.head, levels))
    return [CostPart(name, module, (given,)) for name, module, given in parts]
