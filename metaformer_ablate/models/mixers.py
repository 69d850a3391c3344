"""Token mixers. Each is built as Mixer(site) and maps [B, C, H, W] to [B, C, H, W], in any memory format.

The table of names is in parts.py, with the fields of the spec that each mixer reads. To add one: write a class here,
add a line there.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Site:
    """What a mixer may know of the block it stands in. An option its line in the table does not read is null."""

    dim: int  # channels
    height: int  # of the feature map, in tokens
    width: int
    block: int  # from 0 at the first block of the model
    seed: int  # of the run, for weights that are drawn and then frozen
    pool_size: int | None = None


class Pooling(nn.Module):
    """Average pooling over a pool_size x pool_size window, minus its input, which the residual adds back.

    Positions outside the map do not count (paper, section 3.2, equation 4 and algorithm 1).
    """

    def __init__(self, site: Site):
        super().__init__()
        assert site.pool_size is not None
        self.pool = nn.AvgPool2d(site.pool_size, stride=1, padding=site.pool_size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class Identity(nn.Module):
    """The input as it is: TokenMixer(Norm(x)) = Norm(x); norm and residual stay (paper, table 5: 74.3%)."""

    def __init__(self, site: Site):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x
