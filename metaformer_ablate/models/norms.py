"""Normalizations. Each is built as Norm(dim, eps, bias) and maps [B, C, H, W] to [B, C, H, W].

The table of names is in parts.py. A norm gets null for what its line there does not read. All begin as scale 1 and,
with a bias, shift 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Norm(nn.Module):
    """A learned scale per channel, and a shift unless bias is false."""

    def __init__(self, dim: int, eps: float | None, bias: bool | None):
        super().__init__()
        self.dim, self.eps = dim, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def extra_repr(self) -> str:
        eps = "" if self.eps is None else f", eps={self.eps:g}"
        return f"{self.dim}{eps}{'' if self.bias is not None else ', bias=False'}"


class ModifiedLayerNorm(_Norm):
    """Modified Layer Normalization: one mean and variance per image, over C, H and W; scale and shift per channel.

    PoolFormer's norm (paper, section 4.1 and table 5; GroupNorm with one group in the authors' code). Plain Layer
    Normalization takes them over C at each position: not the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 1, self.weight, self.bias, self.eps or 0.0)


class LayerNorm(_Norm):
    """Layer Normalization: mean and variance over C at each position (arXiv 1607.06450; paper, table 5: 76.5%)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # [B, H, W, C]
        x = F.layer_norm(x, (self.dim,), self.weight, self.bias, self.eps or 0.0)
        return x.permute(0, 3, 1, 2)  # [B, C, H, W]


class BatchNorm(nn.BatchNorm2d):
    """Batch Normalization: mean and variance per channel, over the batch in training (arXiv 1502.03167).

    Its running statistics follow each batch by a tenth. In the paper's table 5: 76.4%.
    """

    def __init__(self, dim: int, eps: float, bias: bool):
        super().__init__(dim, eps=eps)
        if not bias:
            self.register_parameter("bias", None)


class RMSNorm(_Norm):
    """x over its root mean square over C at each position; no mean and no shift (arXiv 1910.07467)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # [B, H, W, C]
        x = F.rms_norm(x, (self.dim,), self.weight, self.eps)
        return x.permute(0, 3, 1, 2)  # [B, C, H, W]


class Affine(_Norm):
    """A learned scale and shift per channel in place of a norm; no statistics (ResMLP, arXiv 2105.03404)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.weight.view(-1, 1, 1)
        return x if self.bias is None else x + self.bias.view(-1, 1, 1)


class NoNorm(nn.Identity):
    """No normalization (paper, table 5: 46.1%)."""

    def __init__(self, dim: int, eps: None, bias: None):
        super().__init__()
