"""Micro-batches: what a device computes at once, where devices share a batch or take it bit by bit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from metaformer_ablate.data.sampling import micro_batch_rows
from metaformer_ablate.models.metaformer import StochasticDepth

# All of torch's modules; its own name for them is private.
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class MicroBatches:
    """A batch of so many images in `count` parts of one size (`micro_batch_rows`); `at` is the one at work.

    Installed on a net, makes stochastic depth (ours and timm's) and dropout draw for the whole batch, in each part the
    same, and keep the rows of the part at work: the masks are those of one device that takes the batch at once. What
    else a net might draw is the same in every part. Where there is one part nothing is touched.
    """

    def __init__(self, count: int, net: nn.Module, batch_size: int):
        self.device = torch.device("cpu")  # of the net
        self.count, self.batch_size, self.at = count, batch_size, 0
        if count > 1:
            rows = _drawing_per_row()
            for module in net.modules():
                if isinstance(module, (*rows, *DROPOUTS)):
                    per_element = not isinstance(module, rows)
                    module.forward = partial(self._draw, module, module.forward, per_element)  # type: ignore[method-assign]

    @property
    def at(self) -> int:
        return self._at

    @at.setter
    def at(self, part: int) -> None:
        # Its rows are a tensor: of a number, a compiled net would be compiled again for each part.
        self._at, self._rows = (
            part,
            micro_batch_rows(torch.arange(self.batch_size, device=self.device), self.count, part),
        )

    def take(self, whole: Tensor) -> Tensor:
        """[B * count, ...] -> [B, ...]."""
        return micro_batch_rows(whole, self.count, self.at)

    def _draw(self, module: nn.Module, draw: Callable[[Tensor], Tensor], per_element: bool, x: Tensor) -> Tensor:
        """`draw` of one part [B, ...]: a factor per element or per row, drawn for the whole batch."""
        if not module.training:
            return draw(x)
        rest = x.shape[1:] if per_element else (1,) * (x.ndim - 1)
        drawn = draw(x.new_ones((self.batch_size, *rest)))
        return x * drawn.index_select(0, self._rows)


def _drawing_per_row() -> tuple[type[nn.Module], ...]:
    if "timm" not in sys.modules:  # then the net is not timm's
        return (StochasticDepth,)
    from timm.layers import DropPath

    return StochasticDepth, DropPath
