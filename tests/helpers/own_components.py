"""A file of components of a user's own, and the parts.yaml that names them."""

from __future__ import annotations

from conftest import TINY_WORDS

CLASSES = """
import torch
from torch import Tensor, nn
from metaformer_ablate.models.mixers import Site

class Roll(nn.Module):
    def __init__(self, site: Site):
        super().__init__()
        self.by = site.kernel_size or 1

    def forward(self, x: Tensor) -> Tensor:
        return x.roll(self.by, dims=3)

class Scale(nn.Module):
    def __init__(self, dim, eps, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.full((dim, 1, 1), 0.5))

    def forward(self, x):
        return x * self.weight

class Halved(nn.Module):
    def forward(self, x):
        return x.relu() / 2
"""


PARTS = """
token_mixers:
  roll: {class: my_parts.py:Roll, about: moved by a token}
norms:
  scale: {class: my_parts.py:Scale}
activations:
  halved: {class: my_parts.py:Halved}
"""


# A map of 16, 8, 4 and 2 tokens a side, so that every stage has something to move.
WORDS = (*(word for word in TINY_WORDS if not word.startswith("data.image_size")), "data.image_size=16")
