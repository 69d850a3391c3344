"""Token mixers. Each is built as Mixer(site) and maps [B, C, H, W] to [B, C, H, W], in any memory format.

The table of names is in components.py, with the fields of the spec that each mixer reads. To add one: write a class
here, add a line there. A mixer that cannot work at its site raises ValueError with what is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.models.cpu_ops import Linear, pool_minus_input
from metaformer_ablate.models.registry import COMPONENTS


@dataclass(frozen=True)
class Site:
    """What a mixer may know of the block it stands in. An option its line in the table does not read is null."""

    dim: int  # channels
    height: int  # of the feature map, in tokens
    width: int
    block: int  # from 0 at the first block of the model
    seed: int  # of the run, for weights that are drawn and then frozen
    pool_size: int | None = None
    kernel_size: int | None = None
    window: int | None = None
    head_dim: int | None = None
    mixer_bias: bool | None = None
    mixer_expansion: float | None = None
    token_mlp_ratio: float | None = None
    activation: str | None = None

    @property
    def tokens(self) -> int:
        return self.height * self.width


class FixedResolution(nn.Module):
    """Base of what has weights for one size of feature map. `check` refuses any other."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.size = (height, width)

    def check(self, x: Tensor) -> None:
        """Raises ValueError unless x is [B, C, H, W] of the size that the weights are for."""
        if tuple(x.shape[-2:]) != self.size:
            here, there = (" x ".join(map(str, size)) for size in (x.shape[-2:], self.size))
            raise ValueError(
                f"{type(self).__name__} was built for a map of {there}, not {here}: it fits one resolution"
            )


class Pooling(nn.Module):
    """Average pooling over a pool_size x pool_size window, minus its input, which the residual adds back.

    Positions outside the map do not count (paper, section 3.2, equation 4 and algorithm 1).
    """

    def __init__(self, site: Site):
        super().__init__()
        size = cast(int, site.pool_size)
        self.pool = nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return pool_minus_input(x, self.pool)


class MaxPooling(nn.Module):
    """Max pooling over a pool_size x pool_size window, minus its input: `Pooling` with another statistic. Ours."""

    def __init__(self, site: Site):
        super().__init__()
        size = cast(int, site.pool_size)
        self.pool = nn.MaxPool2d(size, stride=1, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class Identity(nn.Module):
    """The input as it is: TokenMixer(Norm(x)) = Norm(x); norm and residual stay (paper, table 5: 74.3%)."""

    def __init__(self, site: Site):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class RandomMatrix(FixedResolution):
    """X' = W X over all tokens, one frozen N x N matrix a block (paper, table 5, "Global random matrix": 75.8%).

    W is uniform over [0, 1), then softmax over each row. It is drawn from a generator of its own, seeded by (seed,
    block), so that it is the same whatever else the run draws. Fits one resolution.
    """

    def __init__(self, site: Site):
        super().__init__(site.height, site.width)
        generator = torch.Generator().manual_seed(site.seed * 65_537 + site.block)
        matrix = torch.rand(site.tokens, site.tokens, generator=generator).softmax(dim=-1)
        self.random_matrix = nn.Parameter(matrix, requires_grad=False)  # [N, N]

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return (x.flatten(2) @ self.random_matrix.t()).view(x.shape)  # [B, C, N] @ [N, N]


class DepthwiseConv(nn.Conv2d):
    """One kernel_size x kernel_size filter a channel (paper, table 5, "Depthwise convolution": 78.1%)."""

    def __init__(self, site: Site):
        size = cast(int, site.kernel_size)
        super().__init__(site.dim, site.dim, size, padding=size // 2, groups=site.dim, bias=bool(site.mixer_bias))


class SeparableConv(nn.Module):
    """Inverted separable convolution: widen, activate, depthwise, narrow (MobileNetV2; MetaFormer Baselines)."""

    def __init__(self, site: Site):
        super().__init__()
        size, bias = cast(int, site.kernel_size), bool(site.mixer_bias)
        hidden = int(site.dim * cast(float, site.mixer_expansion))
        self.pwconv1 = Linear(site.dim, hidden, bias=bias)
        self.act1 = COMPONENTS.activations[cast(str, site.activation)].load()()
        self.dwconv = nn.Conv2d(hidden, hidden, size, padding=size // 2, groups=hidden, bias=bias)
        self.pwconv2 = Linear(hidden, site.dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.pwconv1(x.permute(0, 2, 3, 1)))  # [B, H, W, hidden]
        x = self.dwconv(x.permute(0, 3, 1, 2))  # [B, hidden, H, W]
        return self.pwconv2(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # [B, C, H, W]


class Attention(nn.Module):
    """Multi-head self-attention over all tokens (arXiv 1706.03762); no bias on queries, keys and values.

    The paper's hybrid rows have heads of 32 channels and a bias on the projection. `head_dim` must divide the width.
    """

    def __init__(self, site: Site):
        super().__init__()
        self.head_dim = cast(int, site.head_dim)
        if site.dim % self.head_dim:
            raise ValueError(f"head_dim is {self.head_dim}; allowed: a divisor of the width {site.dim}")
        self.qkv = Linear(site.dim, 3 * site.dim, bias=False)
        self.proj = Linear(site.dim, site.dim, bias=bool(site.mixer_bias))

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # [B, N, C]
        return self.attend(tokens).transpose(1, 2).reshape(batch, dim, height, width)

    def attend(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, N, C] -> [B, N, C]; where `mask` [B, 1, 1, N] is false, a token is not looked at."""
        batch, count, dim = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, dim // self.head_dim, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, head_dim]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))


class WindowAttention(Attention):
    """Self-attention within window x window squares that do not overlap (Swin, arXiv 2103.14030, without shift and
    relative positions). The map is padded with zeros to whole windows, which are masked; a window larger than the map
    is the map.
    """

    def __init__(self, site: Site):
        super().__init__(site)
        self.rows = min(cast(int, site.window), site.height)
        self.columns = min(cast(int, site.window), site.width)

    def _cut(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B * windows, N, C], zeros beyond the map."""
        batch, dim, height, width = x.shape
        down, across = -(-height // self.rows), -(-width // self.columns)  # windows, rounded up
        x = F.pad(x, (0, across * self.columns - width, 0, down * self.rows - height))
        x = x.view(batch, dim, down, self.rows, across, self.columns)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, self.rows * self.columns, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        down, across = -(-height // self.rows), -(-width // self.columns)
        mask = None
        if height % self.rows or width % self.columns:  # what was padded is not looked at
            inside = self._cut(x.new_ones(batch, 1, height, width)).flatten(1).bool()
            mask = inside[:, None, None]  # [B * windows, 1, 1, N]
        x = self.attend(self._cut(x), mask)
        x = x.view(batch, down, across, self.rows, self.columns, dim).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(batch, dim, down * self.rows, across * self.columns)[:, :, :height, :width]


class SpatialFC(FixedResolution):
    """One linear layer over all tokens, shared by the channels, without bias (paper, table 5, "SpatialFC": 77.5%).

    Fits one resolution.
    """

    def __init__(self, site: Site):
        super().__init__(site.height, site.width)
        self.fc = Linear(site.tokens, site.tokens, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return self.fc(x.flatten(2)).view(x.shape)  # over [B, C, N]


class TokenMLP(FixedResolution):
    """Two linear layers over all tokens with GELU between, shared by the channels (MLP-Mixer, arXiv 2105.01601).

    Hidden width: token_mlp_ratio x channels, as there. Fits one resolution.
    """

    def __init__(self, site: Site):
        super().__init__(site.height, site.width)
        hidden = max(1, int(site.dim * cast(float, site.token_mlp_ratio)))
        self.fc1 = Linear(site.tokens, hidden, bias=bool(site.mixer_bias))
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, site.tokens, bias=bool(site.mixer_bias))

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return self.fc2(self.act(self.fc1(x.flatten(2)))).view(x.shape)  # over [B, C, N]


class Fourier(nn.Module):
    """The real part of the Fourier transform over channels and over the two axes of tokens (FNet, arXiv 2105.03824).

    FNet has one axis of tokens and no scaling; here the transform is unitary, so that the size of the values stays.
    Computed in fp32 whatever the precision around it.
    """

    def __init__(self, site: Site):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fftn(x.float(), dim=(1, 2, 3), norm="ortho").real.to(x.dtype)


class Shift(nn.Module):
    """A twelfth of the channels moved by one token in each of the four directions, zeros moving in, the rest as they
    are (ShiftViT, arXiv 2201.10801, section 3.2). At least one channel a direction: needs 4 channels.
    """

    def __init__(self, site: Site):
        super().__init__()
        self.share = max(1, site.dim // 12)
        if site.dim < 4:
            raise ValueError(f"the width is {site.dim}; allowed for shift: at least 4")

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, rest = x.split([self.share] * 4 + [x.shape[1] - 4 * self.share], dim=1)
        left, right = F.pad(a, (0, 1))[..., 1:], F.pad(b, (1, 0))[..., :-1]
        up, down = F.pad(c, (0, 0, 0, 1))[..., 1:, :], F.pad(d, (0, 0, 1, 0))[..., :-1, :]
        return torch.cat([left, right, up, down, rest], dim=1)
