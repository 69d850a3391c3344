"""Swin-Mixer: the Swin architecture with a spatial MLP in place of attention, a comparator of table 2.

Source: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021
(arXiv 2103.14030), appendix A3.3, "Swin MLP-Mixer". The details are in the authors' code only
(github.com/microsoft/Swin-Transformer at f82860b, `models/swin_mlp.py` and `configs/swinmlp/`), where it is
called SwinMLP; tests/models/test_comparators.py holds numbers it gave.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer_ablate.models.metaformer import StochasticDepth


class WindowSpatialMLP(nn.Module):
    """One linear layer a head over the positions of a window, shared by all windows and the head's channels.

    Maps [B, H, W, C] in and out; H and W are multiples of `window`, C is one of `num_heads`. With a `shift`
    above 0 the windows lie that far down and right of the regular grid, over a map padded with zeros (so the
    authors; their attention rolls the map and masks instead).
    """

    def __init__(self, *, num_heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.shift = shift
        self.weight = nn.Parameter(torch.empty(num_heads, window**2, window**2))  # [heads, out, in]
        # Flat, as rules that keep biases out of weight decay tell them by their one dimension.
        self.bias = nn.Parameter(torch.zeros(num_heads * window**2))

    def forward(self, x: Tensor) -> Tensor:
        if not self.shift:
            return self.mix(x)
        before, after = self.window - self.shift, self.shift
        x = self.mix(F.pad(x, (0, 0, before, after, before, after)))  # [B, H + window, W + window, C]
        return x[:, before:-after, before:-after]  # [B, H, W, C]

    def mix(self, x: Tensor) -> Tensor:
        """The layer on the regular grid of windows: I of them down, J across; w = window, d = C / heads."""
        w, heads = self.window, self.num_heads
        batch, height, width, dim = x.shape
        x = x.reshape(batch, height // w, w, width // w, w, heads, dim // heads)  # [B, I, w, J, w, heads, d]
        x = x.permute(5, 2, 4, 0, 1, 3, 6)  # [heads, w, w, B, I, J, d]
        columns = x.shape
        # Each channel of each window is a column of one product a head: no weight is repeated for windows.
        x = self.weight @ x.reshape(heads, w * w, -1)  # [heads, w * w, B * I * J * d]
        x = x + self.bias.view(heads, w * w, 1)
        x = x.view(columns).permute(3, 4, 1, 5, 2, 0, 6)  # [B, I, w, J, w, heads, d]
        return x.reshape(batch, height, width, dim)  # [B, H, W, C]

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, window={self.window}, shift={self.shift}"


class Block(nn.Module):
    """Spatial MLP, channel MLP, each behind a LayerNorm and in a residual. Maps [B, H, W, C] in and out."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        window: int,
        shift: int,
        mlp_ratio: int,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.spatial_mlp = WindowSpatialMLP(num_heads=num_heads, window=window, shift=shift)
        self.norm2 = nn.LayerNorm(dim)
        hidden = mlp_ratio * dim
        self.channel_mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.spatial_mlp(self.norm1(x)))  # [B, H, W, C]
        return x + self.drop_path(self.channel_mlp(self.norm2(x)))  # [B, H, W, C]


class PatchEmbedding(nn.Module):
    """Images [B, in_chans, H, W] -> [B, H / patch_size, W / patch_size, dim]."""

    def __init__(self, in_chans: int, dim: int, *, patch_size: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.projection(x).permute(0, 2, 3, 1))  # [B, H / patch_size, W / patch_size, dim]


class PatchMerging(nn.Module):
    """Joins each 2 x 2 of neighbours: [B, H, W, C] -> [B, H / 2, W / 2, 2 C]; H and W are even."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, dim = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, dim)  # [B, H / 2, 2, W / 2, 2, C]
        # The authors' order of the four: the left column from top to bottom, then the right one.
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # [B, H / 2, W / 2, 4 C]
        return self.reduction(self.norm(x))  # [B, H / 2, W / 2, 2 C]


class SwinMixer(nn.Module):
    """Swin-Mixer: images [B, in_chans, image_size, image_size] -> logits [B, num_classes].

    depths, num_heads: one number per stage. A stage has twice the channels of the one before, on half its map.
    embed_dim: channels of the first stage.
    window: side of the windows. On a map not larger than that, the window is the whole map and is not shifted
        (the authors' rule); elsewhere every second block of a stage is shifted by `window // 2`.
    image_size: side of the images, a multiple of the total stride, 4 * 2^(stages - 1), for which the map of
        each stage is a multiple of the window or not larger than it.
    drop_path: rate of stochastic depth at the last block; it grows linearly from 0 at the first.

    Raises ValueError for stages that contradict each other, for an `image_size` that does not fit, and, in
    `forward`, for images of another size.
    """

    patch_size = 4

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        window: int,
        mlp_ratio: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        dims = [embed_dim * 2**index for index in range(len(depths))]
        _check_stages(depths, dims, num_heads)
        _check_image_size(image_size, window, patch_size=self.patch_size, stages=len(depths))
        self.image_size = image_size

        blocks = sum(depths)
        rates = iter([drop_path * index / max(1, blocks - 1) for index in range(blocks)])
        self.patch_embedding = PatchEmbedding(in_chans, embed_dim, patch_size=self.patch_size)
        self.stages = nn.ModuleList()
        map_size = image_size // self.patch_size
        for stage, dim in enumerate(dims):
            modules: list[nn.Module] = []
            if stage:
                modules.append(PatchMerging(dim // 2))
                map_size //= 2
            shift = window // 2 if map_size > window else 0
            modules += [
                Block(
                    dim,
                    num_heads=num_heads[stage],
                    window=min(window, map_size),
                    shift=shift if index % 2 else 0,
                    mlp_ratio=mlp_ratio,
                    drop_path=next(rates),
                )
                for index in range(depths[stage])
            ]
            self.stages.append(nn.Sequential(*modules))
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"images must be {self.image_size} x {self.image_size}, as the windows were laid out for, "
                f"not {x.shape[2]} x {x.shape[3]}"
            )
        x = self.patch_embedding(x)  # [B, image_size / 4, image_size / 4, embed_dim]
        for stage in self.stages:
            x = stage(x)  # [B, size, size, dims[i]]
        x = self.norm(x).mean(dim=(1, 2))  # [B, dims[-1]]
        return self.head(x)  # [B, num_classes]


def _initialise(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear layers; the patch convolution stays at PyTorch's default."""
    if isinstance(module, nn.Linear | WindowSpatialMLP):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_stages(depths: Sequence[int], dims: Sequence[int], num_heads: Sequence[int]) -> None:
    if not depths or len(depths) != len(num_heads):
        raise ValueError(
            f"depths and num_heads must hold one number per stage each, not {len(depths)} and {len(num_heads)}"
        )
    for dim, heads in zip(dims, num_heads, strict=True):
        if dim % heads:
            raise ValueError(f"channels must be multiples of num_heads, and {dim} is not one of {heads}")


def _check_image_size(image_size: int, window: int, *, patch_size: int, stages: int) -> None:
    stride = patch_size * 2 ** (stages - 1)

    def fits(size: int) -> bool:
        maps = [size // (patch_size * 2**stage) for stage in range(stages)]
        return size > 0 and size % stride == 0 and all(side <= window or side % window == 0 for side in maps)

    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    if not fits(image_size):
        below = next((size for size in range(image_size, 0, -1) if fits(size)), None)
        above = next(size for size in itertools.count(max(1, image_size)) if fits(size))
        nearest = f"{above}" if below is None else f"{below} or {above}"
        raise ValueError(
            f"image_size must be a multiple of {stride} for which windows of {window} x {window} tile or "
            f"cover the map of every stage (the nearest is {nearest}), not {image_size}"
        )


# Arguments of SwinMixer by name, as in the authors' configurations. D24 and D6 are channels a head; but B, as
# released with the printed 61 M parameters, 10.4 GMACs and 81.3% top-1, has 32 (and 24 does not divide 128).
# The T sizes were trained at image_size 256 (224 does not fit their window), B at 224.
SWIN_MIXER_SIZES: dict[str, dict[str, Any]] = {
    "swin_mixer_t_d24": {"depths": (2, 2, 6, 2), "embed_dim": 96, "num_heads": (4, 8, 16, 32), "window": 8},
    "swin_mixer_t_d6": {"depths": (2, 2, 6, 2), "embed_dim": 96, "num_heads": (16, 32, 64, 128), "window": 8},
    "swin_mixer_b_d24": {"depths": (2, 2, 18, 2), "embed_dim": 128, "num_heads": (4, 8, 16, 32), "window": 7},
}
