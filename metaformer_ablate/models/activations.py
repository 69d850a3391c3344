"""Activations of the channel MLP. Each takes no argument; the table of names is in parts.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GELU(nn.GELU):
    """x * Phi(x) with the exact normal distribution function, not the tanh approximation (arXiv 1606.08415)."""

    def __init__(self) -> None:
        super().__init__()


class ReLU(nn.ReLU):
    """max(x, 0)."""

    def __init__(self) -> None:
        super().__init__()


class SiLU(nn.SiLU):
    """x * sigmoid(x) (arXiv 1702.03118)."""

    def __init__(self) -> None:
        super().__init__()


class SquaredReLU(nn.Module):
    """max(x, 0) squared (Primer, arXiv 2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


class StarReLU(nn.Module):
    """s * max(x, 0)^2 + b with one learned s (from 1) and b (from 0) (MetaFormer Baselines, section 3.4)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.relu().square() + self.bias
