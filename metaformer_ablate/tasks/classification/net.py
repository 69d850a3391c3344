"""The net of image classification, and what of it is counted."""

from __future__ import annotations

import torch
from torch import nn

from metaformer_ablate.models.build import build_model
from metaformer_ablate.tasks.base import CostPart, RunSections
from metaformer_ablate.training.compute import conditions


def build_net(run: RunSections, kernels: str = "torch", device: torch.device | None = None) -> nn.Module:
    """The net of a run, on the CPU, its weights drawn from the seed (`models.build.build_model`).

    Components of the user's own are tried on `device`, if it is given, as the run trains them.
    """
    under = conditions(run.train, device)
    return build_model(run.model, *run.data.net_shape, seed=run.seed, kernels=kernels, under=under)


def image_shape(run: RunSections) -> tuple[int, int, int]:
    """Channels, height and width of an image that costs are counted for."""
    channels, _, size = run.data.net_shape
    return channels, size, size


def cost_parts(net: nn.Module, run: RunSections) -> list[CostPart]:
    """The whole net, for one image."""
    return [CostPart("net", net, (torch.zeros(1, *image_shape(run)),))]
