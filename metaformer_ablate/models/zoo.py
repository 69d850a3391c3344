"""Sizes of the paper and small ones for small images, by name. Holds no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """Depths and widths, and what table 6 of the paper trains that size with."""

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    drop_path: float = 0.1
    layer_scale: float = 1e-5


# Table 1, with the stochastic depth and LayerScale of table 6. The number is the sum of the depths. The t sizes are
# ours: the same 4 stages, narrower, for images of 16 to 64 pixels.
SIZES: dict[str, Size] = {
    "s12": Size((2, 2, 6, 2), (64, 128, 320, 512)),
    "s24": Size((4, 4, 12, 4), (64, 128, 320, 512)),
    "s36": Size((6, 6, 18, 6), (64, 128, 320, 512), drop_path=0.2, layer_scale=1e-6),
    "m36": Size((6, 6, 18, 6), (96, 192, 384, 768), drop_path=0.3, layer_scale=1e-6),
    "m48": Size((8, 8, 24, 8), (96, 192, 384, 768), drop_path=0.4, layer_scale=1e-6),
    "t5": Size((1, 1, 2, 1), (16, 32, 64, 128), drop_path=0.0, layer_scale=0.1),
    "t12": Size((2, 2, 6, 2), (32, 64, 160, 256), drop_path=0.0, layer_scale=0.1),
}

# A named model is a set of values of the model spec. The keys are field names under `model.`; `size` is allowed.
NAMED: dict[str, dict[str, Any]] = {
    f"poolformer_{size}": {"size": size, "token_mixer": "pooling", "pool_size": 3, "norm": "mln", "activation": "gelu"}
    for size in ("s12", "s24", "s36", "m36", "m48")
}
