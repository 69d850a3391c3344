"""Normalizations. Each is built as Norm(dim, eps, bias) and maps [B, C, H, W] to [B, C, H, W].

The table of names is in parts.py. A norm gets null for what its line there does not read.
"""

from __future__ import annotations

from torch import Tensor, nn


class ModifiedLayerNorm(nn.GroupNorm):
    """Modified Layer Normalization: one mean and variance an image, over C, H and W; scale and shift a channel.

    PoolFormer's norm (paper, section 4.1 and table 5; GroupNorm with one group in the authors' code). Plain Layer
    Normalization takes them over C at each position: not the same.
    """

    def __init__(self, dim: int, eps: float, bias: bool):
        super().__init__(1, dim, eps=eps)
        if not bias:
            self.bias = None


class NoNorm(nn.Identity):
    """No normalization (paper, table 5: 46.1%)."""

    def __init__(self, dim: int, eps: None, bias: None):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
