"""Activations of the channel MLP. Each takes no argument; the table of names is in parts.py."""

from torch import nn


class GELU(nn.GELU):
    """x * Phi(x) with the exact normal distribution function, not the tanh approximation (arXiv 1606.08415)."""

    def __init__(self) -> None:
        super().__init__()
