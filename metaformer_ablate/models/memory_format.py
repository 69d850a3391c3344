"""How a net's weights lie in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def laid_out(net: Net, memory_format: str) -> Net:
    """The net itself, with the weights of its convolutions in `channels_last` where that is asked for.

    Other weights of four dimensions keep their layout: what a user's own module makes of them (`torch.view_as_complex`,
    `view`) may need it.
    """
    if memory_format == "channels_last":
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def torch_format(memory_format: str) -> torch.memory_format:
    """torch's value of `train.memory_format`."""
    return torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
