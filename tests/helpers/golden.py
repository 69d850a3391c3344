"""Weights and images that follow from names and shapes alone, for comparisons with numbers that other code gave."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor, nn


def noise(shape: torch.Size, seed: int) -> Tensor:
    """Numbers in [-1, 1) from an integer hash, the same under every version of torch. Float64."""
    x = (torch.arange(shape.numel()) + seed) & 0xFFFFFFFF
    for _ in range(2):
        x = ((x ^ (x >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return ((x ^ (x >> 16)).double() / 2**31 - 1).view(shape)


@torch.no_grad()
def fill(model: nn.Module) -> None:
    """Weights from the name and shape of each parameter alone.

    Of a scale at which the eps of each norm, the shape of GELU and the scale of attention show in the logits.
    """
    for name, parameter in model.named_parameters():
        values = noise(parameter.shape, zlib.crc32(name.encode()))
        if "norm" in name and name.endswith("weight"):
            values = 0.1 + 0.05 * values
        elif parameter.ndim == 2 or name.endswith("spatial_mlp.weight"):
            values = values * 4 / math.sqrt(parameter.shape[-1])
        else:
            values = values * 0.02
        parameter.copy_(values)


def image(size: int) -> Tensor:
    return noise(torch.Size((1, 3, size, size)), size).float()
