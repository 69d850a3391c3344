"""The MetaFormer: blocks, stages, model (Yu et al., CVPR 2022, section 3; arXiv 2111.11418), and what MetaFormer
Baselines for Vision (arXiv 2210.13452) adds to it, as options.

Modules are named as timm names them, so that weights go over by name; the order of operations, the initialisation
and the head are the authors' (github.com/sail-sg/poolformer, github.com/sail-sg/metaformer).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from metaformer_ablate.models.activations import SquaredReLU
from metaformer_ablate.models.cpu_ops import Linear
from metaformer_ablate.models.mixers import FixedResolution, Site
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import MIXER_OPTIONS, ConvSpec, ModelSpec


class StochasticDepth(nn.Module):
    """Drops a branch for a whole sample with probability `rate` in training; scales the kept ones by 1 / (1 - rate).

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
    """One learned factor per channel: LayerScale on a branch (2103.17239), ResScale on the residual (2110.09456)."""

    def __init__(self, dim: int, value: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(-1, 1, 1)


class PositionEmbedding(FixedResolution):
    """A learned vector for each position, zero at first, added to the map: [B, C, H, W].

    It fits one resolution unless `resizes` is set: then it is interpolated to a map of another size (bilinear, as PVT
    does for dense prediction; arXiv 2102.12122, section 4.2).
    """

    def __init__(self, dim: int, height: int, width: int):
        super().__init__(height, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, dim, height, width))
        self.resizes = False

    def forward(self, x: Tensor) -> Tensor:
        if self.resizes and tuple(x.shape[-2:]) != self.size:
            return x + F.interpolate(self.pos_embed, size=x.shape[-2:], mode="bilinear", align_corners=False)
        self.check(x)
        return x + self.pos_embed


class ChannelMlp(nn.Module):
    """Two linear layers over the channels at each position, dim -> dim * ratio -> dim (paper, equation 3).

    The authors write them as 1 x 1 convolutions. As linear layers over [B, H, W, C] they are the same numbers and,
    in channels_last, where that view costs nothing, faster.
    """

    def __init__(self, dim: int, ratio: float, activation: nn.Module, bias: bool):
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1 = Linear(dim, hidden, bias=bias)
        self.act = activation
        self.fc2 = Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # [B, H, W, C]
        x = self.fc2(self.act(self.fc1(x)))
        return x.permute(0, 3, 1, 2)  # [B, C, H, W]


class Stem(nn.Module):
    """Input embedding: a convolution, then a norm if there is one (paper: none; Baselines: one)."""

    def __init__(self, in_dim: int, dim: int, geometry: ConvSpec, norm: nn.Module):
        super().__init__()
        self.conv = _convolution(in_dim, dim, geometry)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Downsampling(nn.Module):
    """Between stages: a norm if there is one (paper: none; Baselines: one), then a convolution."""

    def __init__(self, in_dim: int, dim: int, geometry: ConvSpec, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.conv = _convolution(in_dim, dim, geometry)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class MetaFormerBlock(nn.Module):
    """x + scale1 * token_mixer(norm1(x)), then x + scale2 * mlp(norm2(x)), each branch under stochastic depth.

    Without a residual the branch alone goes on, and LayerScale and stochastic depth go with the residual (paper,
    table 5, "Residual connection -> None"). Without a channel MLP the second half is left out, its norm too.
    """

    def __init__(self, spec: ModelSpec, site: Site, mixer: str, drop_path: float, res_scale: float | None):
        super().__init__()
        dim = site.dim
        self.residual = spec.residual
        self.norm1 = build_norm(spec, spec.norm, dim)
        self.token_mixer = COMPONENTS.mixers[mixer].load()(site)
        self.layer_scale1 = _scale(dim, spec.layer_scale)
        self.drop_path1 = StochasticDepth(drop_path)
        self.res_scale1 = _scale(dim, res_scale)
        self.mlp: nn.Module | None = None
        if spec.channel_mlp:
            assert spec.mlp_ratio is not None and spec.activation is not None
            self.norm2 = build_norm(spec, spec.norm, dim)
            self.mlp = ChannelMlp(
                dim, spec.mlp_ratio, COMPONENTS.activations[spec.activation].load()(), bool(spec.mlp_bias)
            )
            self.layer_scale2 = _scale(dim, spec.layer_scale)
            self.drop_path2 = StochasticDepth(drop_path)
            self.res_scale2 = _scale(dim, res_scale)

    def mix(self, x: Tensor) -> Tensor:
        """The first half, [B, C, H, W] to the same."""
        y = self.drop_path1(self.layer_scale1(self.token_mixer(self.norm1(x))))
        return self.res_scale1(x) + y if self.residual else y

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        if self.mlp is not None:
            y = self.drop_path2(self.layer_scale2(self.mlp(self.norm2(x))))
            x = self.res_scale2(x) + y if self.residual else y
        return x


class Stage(nn.Module):
    """Down-sampling, but for the first stage, a position embedding if there is one, then blocks of one width."""

    def __init__(self, downsample: nn.Module, position: nn.Module, blocks: list[MetaFormerBlock]):
        super().__init__()
        self.downsample = downsample
        self.position = position
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.position(self.downsample(x))
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return self.blocks(x)
        for block in self.blocks:  # what each keeps is its input; the rest is computed again, with the same draws
            x = checkpoint(block, x, use_reentrant=False)
        return x


class MlpClassifier(nn.Module):
    """[B, C] to logits through a hidden layer of 4 C, SquaredReLU and LayerNorm (Baselines' ConvFormer, CAFormer)."""

    def __init__(self, dim: int, num_classes: int, dropout: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = SquaredReLU()
        self.norm = nn.LayerNorm(4 * dim)
        self.head_drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(4 * dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.head_drop(self.norm(self.act(self.fc1(x)))))


class Head(nn.Module):
    """The mean over positions and a classifier, with a norm before the mean (paper) or after it (Baselines).

    timm pools first for all of them: with the authors' PoolFormer weights its logits are others.
    """

    def __init__(self, spec: ModelSpec, dim: int, num_classes: int):
        super().__init__()
        self.pool_first = spec.head_norm == "after_pool"
        self.norm = nn.LayerNorm(dim, eps=1e-6) if self.pool_first else build_norm(spec, spec.norm, dim)
        self.fc: nn.Module = nn.Linear(dim, num_classes)
        if spec.head == "mlp":
            self.fc = MlpClassifier(dim, num_classes, spec.head_dropout or 0.0)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool_first:
            return self.fc(self.norm(x.mean((-2, -1))))  # [B, C, H, W] -> [B, num_classes]
        return self.fc(self.norm(x).mean((-2, -1)))


class MetaFormer(nn.Module):
    """Images [B, in_chans, H, W] to logits [B, num_classes], as the spec says; with no classes, to the last map.

    `sizes` is (height, width) of the map in each stage, in tokens; `seed` is for weights that are drawn and frozen.
    `fused` has, for a norm and a token mixer, the class of block that computes the same in their place.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        in_chans: int,
        num_classes: int | None,
        sizes: list[tuple[int, int]],
        seed: int = 0,
        fused: Mapping[tuple[str | None, str], type[MetaFormerBlock]] | None = None,
    ):
        super().__init__()
        depths, dims, mixers = spec.stages()
        assert spec.stem is not None and spec.downsample is not None
        self.stem = Stem(in_chans, dims[0], spec.stem, build_norm(spec, spec.stem.norm, dims[0]))
        stages, block, last = [], 0, max(sum(depths) - 1, 1)
        for i, (depth, dim, mixer) in enumerate(zip(depths, dims, mixers, strict=True)):
            height, width = sizes[i]
            options = {name: spec.at_stage(name, i) for name in MIXER_OPTIONS if name in COMPONENTS.mixers[mixer].reads}
            block_class = (fused or {}).get((spec.norm, mixer), MetaFormerBlock)
            blocks = []
            for _ in range(depth):
                site = Site(dim=dim, height=height, width=width, block=block, seed=seed, **options)
                # Linear from 0 at the first block to the peak at the last (paper, table 6).
                rate = (spec.drop_path or 0.0) * block / last
                blocks.append(block_class(spec, site, mixer, rate, spec.at_stage("res_scale", i)))
                block += 1
            downsample: nn.Module = nn.Identity()
            if i:
                norm = build_norm(spec, spec.downsample.norm, dims[i - 1])
                downsample = Downsampling(dims[i - 1], dim, spec.downsample, norm)
            embedded = spec.at_stage("position_embedding", i)
            position = PositionEmbedding(dim, height, width) if embedded else nn.Identity()
            stages.append(Stage(downsample, position, blocks))
        self.stages = nn.Sequential(*stages)
        self.head: nn.Module = nn.Identity() if num_classes is None else Head(spec, dims[-1], num_classes)
        self._initialise(spec.conv_init == "trunc_normal")

    def _initialise(self, convolutions: bool) -> None:
        # Both codes draw linear layers (so the MLP, which PoolFormer writes as convolutions) from a truncated normal
        # of 0.02. PoolFormer leaves the stem, the down-sampling and a depthwise mixer to PyTorch's default, Baselines
        # draws them too. timm's port draws every convolution of PoolFormer as well: not the same start.
        drawn = (nn.Linear, nn.Conv2d) if convolutions else (nn.Linear,)
        kept = {m for part in self.modules() if getattr(part, "keeps_initialisation", False) for m in part.modules()}
        for module in self.modules():
            if isinstance(module, drawn) and module not in kept:
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether each block's activations are computed once more in the backward pass, to save memory; as in timm."""
        for stage in self.stages:
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    def forward_features(self, x: Tensor) -> Tensor:
        """[B, in_chans, H, W] -> [B, C, H', W'], before the head's norm."""
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.forward_features(x))


def _convolution(in_dim: int, dim: int, geometry: ConvSpec) -> nn.Conv2d:
    return nn.Conv2d(in_dim, dim, geometry.kernel, stride=geometry.stride, padding=geometry.padding)


def build_norm(spec: ModelSpec, name: str | None, dim: int) -> nn.Module:
    assert name is not None
    reads = COMPONENTS.norms[name].reads
    eps = spec.norm_eps if "norm_eps" in reads else None
    return COMPONENTS.norms[name].load()(dim, eps, spec.norm_bias if "norm_bias" in reads else None)


def _scale(dim: int, value: float | None) -> nn.Module:
    return nn.Identity() if value is None else ChannelScale(dim, value)
