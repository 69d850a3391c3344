"""The MetaFormer: blocks, stages, model (Yu et al., CVPR 2022, section 3; arXiv 2111.11418).

Modules are named as timm names them, so that weights go over by name; the order of operations, the initialisation
and the head (norm, then average pooling) are the authors' (github.com/sail-sg/poolformer).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metaformer_ablate.models.mixers import Site
from metaformer_ablate.models.parts import ACTIVATIONS, MIXERS, NORMS
from metaformer_ablate.spec import STAGED, ConvSpec, ModelSpec


class StochasticDepth(nn.Module):
    """Drops a branch for a whole sample with probability `rate` in training, and scales the kept ones by 1 / (1 - rate).

    Deep Networks with Stochastic Depth (arXiv 1603.09382). Draws from the global generator as timm's DropPath does.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)  # [B, 1, 1, 1]
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class ChannelScale(nn.Module):
    """One learned factor a channel: LayerScale (arXiv 2103.17239)."""

    def __init__(self, dim: int, value: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(-1, 1, 1)


class ChannelMlp(nn.Module):
    """Two linear layers over the channels at each position, dim -> dim * ratio -> dim (paper, equation 3).

    The authors write them as 1 x 1 convolutions. As linear layers over [B, H, W, C] they are the same numbers and,
    in channels_last, where that view costs nothing, faster.
    """

    def __init__(self, dim: int, ratio: float, activation: nn.Module):
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = activation
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # [B, H, W, C]
        x = self.fc2(self.act(self.fc1(x)))
        return x.permute(0, 3, 1, 2)  # [B, C, H, W]


class Embedding(nn.Module):
    """The stem and the down-sampling between stages: one convolution, no norm (paper, section 4.1)."""

    def __init__(self, in_dim: int, dim: int, geometry: ConvSpec):
        super().__init__()
        self.conv = nn.Conv2d(in_dim, dim, geometry.kernel, stride=geometry.stride, padding=geometry.padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class MetaFormerBlock(nn.Module):
    """x + scale1 * token_mixer(norm1(x)), then x + scale2 * mlp(norm2(x)), each branch under stochastic depth.

    Without a residual the branch alone goes on, and LayerScale and stochastic depth go with the residual (paper,
    table 5, "Residual connection -> None"). Without a channel MLP the second half is left out, its norm too.
    """

    def __init__(self, spec: ModelSpec, site: Site, mixer: str, drop_path: float):
        super().__init__()
        dim = site.dim
        self.residual = spec.residual
        self.norm1 = _norm(spec, dim)
        self.token_mixer = MIXERS[mixer].load()(site)
        self.layer_scale1 = ChannelScale(dim, spec.layer_scale) if spec.layer_scale else nn.Identity()
        self.drop_path1 = StochasticDepth(drop_path)
        self.mlp: nn.Module | None = None
        if spec.channel_mlp:
            assert spec.mlp_ratio is not None and spec.activation is not None
            self.norm2 = _norm(spec, dim)
            self.mlp = ChannelMlp(dim, spec.mlp_ratio, ACTIVATIONS[spec.activation].load()())
            self.layer_scale2 = ChannelScale(dim, spec.layer_scale) if spec.layer_scale else nn.Identity()
            self.drop_path2 = StochasticDepth(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_path1(self.layer_scale1(self.token_mixer(self.norm1(x))))  # [B, C, H, W]
        x = x + y if self.residual else y
        if self.mlp is not None:
            y = self.drop_path2(self.layer_scale2(self.mlp(self.norm2(x))))
            x = x + y if self.residual else y
        return x


class Stage(nn.Module):
    """Down-sampling, but for the first stage, then blocks of one width."""

    def __init__(self, downsample: nn.Module, blocks: list[MetaFormerBlock]):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Head(nn.Module):
    """Norm, then the mean over positions, then a linear layer, as the authors have it (timm pools first)."""

    def __init__(self, spec: ModelSpec, dim: int, num_classes: int):
        super().__init__()
        self.norm = _norm(spec, dim)
        self.fc = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x).mean((-2, -1)))  # [B, C, H, W] -> [B, num_classes]


class MetaFormer(nn.Module):
    """Images [B, in_chans, H, W] to logits [B, num_classes], as the spec says.

    `sizes` is (height, width) of the map in each stage, in tokens; `seed` is for weights that are drawn and frozen.
    """

    def __init__(
        self, spec: ModelSpec, *, in_chans: int, num_classes: int, sizes: list[tuple[int, int]], seed: int = 0
    ):
        super().__init__()
        self.stem = Embedding(in_chans, spec.dims[0], spec.stem)
        stages, block, last = [], 0, max(sum(spec.depths) - 1, 1)
        for i, (depth, dim, (height, width)) in enumerate(zip(spec.depths, spec.dims, sizes, strict=True)):
            mixer = spec.token_mixer[i]
            options = {key: getattr(spec, key)[i] for key in STAGED if key != "token_mixer"}
            blocks = []
            for _ in range(depth):
                site = Site(dim=dim, height=height, width=width, block=block, seed=seed, **options)
                # Linear from 0 at the first block to the peak at the last (paper, table 6).
                blocks.append(MetaFormerBlock(spec, site, mixer, (spec.drop_path or 0.0) * block / last))
                block += 1
            downsample = Embedding(spec.dims[i - 1], dim, spec.downsample) if i else nn.Identity()
            stages.append(Stage(downsample, blocks))
        self.stages = nn.Sequential(*stages)
        self.head = Head(spec, spec.dims[-1], num_classes)
        self.apply(_initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> [B, C, H', W'], before the head's norm."""
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x))


def _norm(spec: ModelSpec, dim: int) -> nn.Module:
    return NORMS[spec.norm].load()(dim, spec.norm_eps, spec.norm_bias)


def _initialise(module: nn.Module) -> None:
    # The authors draw the linear layers and the MLP from a truncated normal of 0.02 and leave the stem and the
    # down-sampling to PyTorch's default. timm's port draws every convolution with 0.02: not the same start.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
