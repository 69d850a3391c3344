"""Pyramid Vision Transformer, first version: a comparator of table 2.

Source: Wang et al., "Pyramid Vision Transformer: A Versatile Backbone for Dense Prediction without
Convolutions", ICCV 2021 (arXiv 2102.12122), section 3 and table 1. Where the paper leaves a choice open, the
authors' code decides (github.com/whai362/PVT at 57e2dfa, `classification/pvt.py`); tests/models/test_comparators.py
holds numbers it gave.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaformer_ablate.models.metaformer import StochasticDepth


class SpatialReductionAttention(nn.Module):
    """Attention in which a convolution shrinks the map before keys and values are taken (section 3.3).

    Tokens [B, N, C] in and out. With `sr_ratio` R above 1 they must be the whole map, N = height * width, of
    sides that are multiples of R, and there are N / R^2 keys. R = 1 is plain attention, over any tokens.
    """

    def __init__(self, dim: int, *, num_heads: int, sr_ratio: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.reduction: nn.Conv2d | None = None
        if sr_ratio > 1:
            self.reduction = nn.Conv2d(dim, dim, kernel_size=sr_ratio, stride=sr_ratio)
            self.reduction_norm = nn.LayerNorm(dim)  # eps 1e-5 here and 1e-6 in the blocks, as the authors'
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        batch, count, dim = x.shape
        heads = (self.num_heads, dim // self.num_heads)
        q = self.q(x).reshape(batch, count, *heads).transpose(1, 2)  # [B, heads, N, C / heads]
        if self.reduction is not None:
            x = self.reduction(tokens_to_map(x, size))  # [B, C, height / R, width / R]
            x = self.reduction_norm(x.flatten(2).transpose(1, 2))  # [B, N / R^2, C]
        kv = self.kv(x).reshape(batch, -1, 2, *heads)  # [B, keys, 2, heads, C / heads]
        k, v = kv.permute(2, 0, 3, 1, 4)  # [B, heads, keys, C / heads] each
        x = F.scaled_dot_product_attention(q, k, v)  # [B, heads, N, C / heads]
        x = x.transpose(1, 2).reshape(batch, count, dim)  # [B, N, C]
        return self.proj(x)


class Block(nn.Module):
    """Attention, then channel MLP, each behind a LayerNorm and in a residual. Tokens [B, N, C] in and out."""

    def __init__(self, dim: int, *, num_heads: int, mlp_ratio: int, sr_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attention = SpatialReductionAttention(dim, num_heads=num_heads, sr_ratio=sr_ratio)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x), size))  # [B, N, C]
        return x + self.drop_path(self.mlp(self.norm2(x)))  # [B, N, C]


class Stage(nn.Module):
    """Patch embedding, position embedding, blocks: [B, in_chans, H, W] -> [B, dim, H / patch_size, W / patch_size].

    With `class_token` a learned token, with a position of its own, stands before the N of the map, and all come
    out as tokens, [B, 1 + N, dim]. `drop_path` holds one rate a block, and so the depth. The position embedding
    is of a square map of `map_size`; for a map of another size it is interpolated (bilinear, as the authors' code
    for dense prediction does).
    """

    def __init__(
        self,
        *,
        in_chans: int,
        dim: int,
        num_heads: int,
        mlp_ratio: int,
        sr_ratio: int,
        patch_size: int,
        map_size: int,
        class_token: bool,
        drop_path: Sequence[float],
    ) -> None:
        super().__init__()
        self.map_size = map_size
        self.patch_embedding = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)
        self.patch_norm = nn.LayerNorm(dim)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        self.drops_class_position = False
        self.position_embedding = nn.Parameter(torch.zeros(1, map_size**2 + int(class_token), dim))
        self.blocks = nn.ModuleList(
            Block(dim, num_heads=num_heads, mlp_ratio=mlp_ratio, sr_ratio=sr_ratio, drop_path=rate)
            for rate in drop_path
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embedding(x)  # [B, C, H, W]
        size = (x.shape[2], x.shape[3])
        x = self.patch_norm(x.flatten(2).transpose(1, 2))  # [B, N, C]
        if self.class_token is not None:
            x = torch.cat((self.class_token.expand(x.shape[0], -1, -1), x), dim=1)  # [B, 1 + N, C]
        x = x + self.positions(size)  # [B, (1 +) N, C]
        for block in self.blocks:
            x = block(x, size)
        return tokens_to_map(x, size) if self.class_token is None else x

    def drop_class_token(self) -> None:
        """Takes the class token away. Its place stays in the position embedding, unread, as in the authors' code for
        dense prediction."""
        self.class_token, self.drops_class_position = None, True

    def positions(self, size: tuple[int, int]) -> Tensor:
        """[1, (1 +) N, C]: the position embedding for a map of (height, width)."""
        if size == (self.map_size, self.map_size) and not self.drops_class_position:
            return self.position_embedding
        own = self.position_embedding.shape[1] - self.map_size**2  # of the class token: 1 or 0
        first, rest = self.position_embedding[:, :own], self.position_embedding[:, own:]
        if size != (self.map_size, self.map_size):
            square = tokens_to_map(rest, (self.map_size, self.map_size))
            rest = F.interpolate(square, size=size, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        return rest if self.drops_class_position else torch.cat((first, rest), dim=1)


class PVT(nn.Module):
    """PVT: images [B, in_chans, image_size, image_size] -> logits [B, num_classes].

    depths, dims, num_heads, mlp_ratios, sr_ratios, patch_sizes: one number per stage. The last stage has the
        class token, from which the logits are read, and so no spatial reduction: `sr_ratios[-1]` is 1.
    image_size: side of the images, a multiple of every stage's stride times its reduction (of 32 in the named
        sizes). The position embeddings are as large as the maps: another size is another model.
    drop_path: rate of stochastic depth at the last block; it grows linearly from 0 at the first.

    Raises ValueError for stages that contradict each other, for an `image_size` that does not fit, and, in
    `forward`, for images of another size.
    """

    def __init__(
        self,
        *,
        depths: Sequence[int],
        dims: Sequence[int],
        num_heads: Sequence[int],
        mlp_ratios: Sequence[int],
        sr_ratios: Sequence[int],
        patch_sizes: Sequence[int],
        in_chans: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        _check_stages(depths, dims, num_heads, mlp_ratios, sr_ratios, patch_sizes)
        _check_image_size(image_size, patch_sizes, sr_ratios)
        self.image_size = image_size

        blocks = sum(depths)
        rates = [drop_path * index / max(1, blocks - 1) for index in range(blocks)]
        self.stages = nn.ModuleList()
        for index, dim in enumerate(dims):
            first = sum(depths[:index])
            self.stages.append(
                Stage(
                    in_chans=dims[index - 1] if index else in_chans,
                    dim=dim,
                    num_heads=num_heads[index],
                    mlp_ratio=mlp_ratios[index],
                    sr_ratio=sr_ratios[index],
                    patch_size=patch_sizes[index],
                    map_size=image_size // math.prod(patch_sizes[: index + 1]),
                    class_token=index == len(dims) - 1,
                    drop_path=rates[first : first + depths[index]],
                )
            )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], num_classes)
        self.apply(_initialise)

    def no_weight_decay(self) -> set[str]:
        """Parameters that the authors leave out of weight decay besides those of one dimension."""
        return {f"stages.{len(self.stages) - 1}.class_token"}

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(
                f"images must be {self.image_size} x {self.image_size}, the size of the position embeddings, "
                f"not {x.shape[2]} x {x.shape[3]}"
            )
        for stage in self.stages:
            x = stage(x)  # [B, dims[i], size, size], from the last stage [B, 1 + N, dims[-1]]
        return self.head(self.norm(x[:, 0]))  # [B, num_classes]


def tokens_to_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens [B, height * width, C] -> map [B, C, height, width], in channels-last order."""
    batch, _, dim = x.shape
    return x.reshape(batch, *size, dim).permute(0, 3, 1, 2)


def _initialise(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear layers and embeddings; convolutions stay at PyTorch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Stage):
        nn.init.trunc_normal_(module.position_embedding, std=0.02)
        if module.class_token is not None:
            nn.init.trunc_normal_(module.class_token, std=0.02)


def _check_stages(
    depths: Sequence[int],
    dims: Sequence[int],
    num_heads: Sequence[int],
    mlp_ratios: Sequence[int],
    sr_ratios: Sequence[int],
    patch_sizes: Sequence[int],
) -> None:
    lengths = [len(values) for values in (depths, dims, num_heads, mlp_ratios, sr_ratios, patch_sizes)]
    if min(lengths) < 1 or len(set(lengths)) > 1:
        raise ValueError(
            "depths, dims, num_heads, mlp_ratios, sr_ratios and patch_sizes must hold one number per "
            f"stage each, not {', '.join(map(str, lengths))} numbers"
        )
    for dim, heads in zip(dims, num_heads, strict=True):
        if dim % heads:
            raise ValueError(f"dims must be multiples of num_heads, and {dim} is not one of {heads}")
    if sr_ratios[-1] != 1:
        raise ValueError(
            f"sr_ratios must end with 1, as the class token has no place on a map, not with {sr_ratios[-1]}"
        )


def _check_image_size(image_size: int, patch_sizes: Sequence[int], sr_ratios: Sequence[int]) -> None:
    # The authors' convolutions would silently drop the rows and columns that are left over.
    strides = [math.prod(patch_sizes[: index + 1]) for index in range(len(patch_sizes))]
    multiple = math.lcm(*(stride * sr_ratio for stride, sr_ratio in zip(strides, sr_ratios, strict=True)))
    if image_size < 1 or image_size % multiple:
        raise ValueError(
            f"image_size must be a multiple of {multiple}, so that patches and spatial reductions tile each "
            f"map, not {image_size}"
        )


_PYRAMID: dict[str, Any] = {
    "dims": (64, 128, 320, 512),
    "num_heads": (1, 2, 5, 8),
    "mlp_ratios": (8, 8, 4, 4),
    "sr_ratios": (8, 4, 2, 1),
    "patch_sizes": (4, 2, 2, 2),
}


# Arguments of PVT by name (table 1 of the paper). All were trained at image_size 224.
PVT_SIZES: dict[str, dict[str, Any]] = {
    "pvt_tiny": {"depths": (2, 2, 2, 2), **_PYRAMID},
    "pvt_small": {"depths": (3, 4, 6, 3), **_PYRAMID},
    "pvt_medium": {"depths": (3, 4, 18, 3), **_PYRAMID},
    "pvt_large": {"depths": (3, 8, 27, 3), **_PYRAMID},
}
