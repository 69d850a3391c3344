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


GLOBAL_FILTER = """
class GlobalFilter(nn.Module):
    def __init__(self, site: Site):
        super().__init__()
        h, w, dim = site.height, site.width // 2 + 1, site.dim
        self.complex_weight = nn.Parameter(torch.randn(h, w, dim, 2, dtype=torch.float32) * 0.02)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        B, a, b, C = x.shape
        x = x.to(torch.float32)
        x = torch.fft.rfft2(x, dim=(1, 2), norm='ortho')
        weight = torch.view_as_complex(self.complex_weight)
        x = x * weight
        x = torch.fft.irfft2(x, s=(a, b), dim=(1, 2), norm='ortho')
        return x.permute(0, 3, 1, 2)
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
