"""The first half of a PoolFormer block on a GPU in few passes over memory: MLN, pooling minus input, LayerScale,
stochastic depth and the residual as one operator, written in Triton.

Average pooling whose windows count only what lies inside the map keeps constants, so pool(n) - n of the normalised map
n = gamma * (x - mean) * rstd + beta is gamma * rstd * (pool(x) - x): the mean and beta cancel, exactly. What follows in
the block scales the branch by a factor per channel (LayerScale) and per image (stochastic depth). All of it is

    out = x + factor * rstd * (pool(x) - x),    factor[b, c] = mask[b] * layer_scale[c] * gamma[c].

Forward: x is read for its statistics and once more, and out is written. Backward: the gradient and x are read twice,
for sums over the positions and then for the gradient of x, which depends on these sums, and that is written. The
statistics are left to torch: the compiler computes them where it writes x. Layer Normalization has statistics of its
own at each position: there nothing cancels.

Importing this module loads Triton, which torch brings along on Linux; models/build.py does so where a run asks for it.
Nothing is tuned at run time and no sum depends on the order in which programs end: the same input gives the same bits
on the same GPU. Sums and statistics are in fp32 whatever the type of x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from metaformer_ablate.models.metaformer import MetaFormerBlock
from metaformer_ablate.models.mixers import Site
from metaformer_ablate.models.norms import ModifiedLayerNorm
from metaformer_ablate.models.spec import ModelSpec

# ---------------------------------------------------------------------------------------------------------------------
# Kernels. Maps lie in memory as [B, H, W, C]. A program has a tile of COLUMNS x CHANNELS and walks down ROWS rows with
# it. What windows share they read again from the cache: keeping the sums of rows in registers instead saves loads for
# windows of 5 and more, but Triton 3.8 dies of an assertion in LLVM over such loops for maps in bfloat16.


@triton.jit
def _place(height, width, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr):
    """What this program works on: the image, the number of its tile in the map, its first row, columns, channels."""
    blocks, across, down = tl.cdiv(channels, CHANNELS), tl.cdiv(width, COLUMNS), tl.cdiv(height, ROWS)
    program = tl.program_id(0)
    tile = program // blocks % (across * down)
    columns = tile % across * COLUMNS + tl.arange(0, COLUMNS)
    c = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    return (program // blocks // (across * down)).to(tl.int64), tile, tile // across * ROWS, columns, c


@triton.jit
def _seen(i, length, RADIUS: tl.constexpr):
    """How many of the positions i - RADIUS to i + RADIUS lie in the map; 1 where none does, for what is masked."""
    return tl.maximum(tl.minimum(i + RADIUS, length - 1) - tl.maximum(i - RADIUS, 0) + 1, 1)


@triton.jit
def _row_sum(ptr, h, columns, c, height, width, channels, RADIUS: tl.constexpr, SHARED: tl.constexpr):
    """The sums [COLUMNS, CHANNELS] along row h of the windows around each column; what lies outside the map is zero.

    SHARED: each value is first divided by the number of positions in its own window (the adjoint of the mean).
    """
    total = tl.zeros((columns.shape[0], c.shape[0]), tl.float32)
    for step in tl.static_range(2 * RADIUS + 1):
        column = columns + (step - RADIUS)
        inside = (column >= 0) & (column < width) & (h >= 0) & (h < height)
        place = (h * width + column)[:, None] * channels + c[None, :]
        value = tl.load(ptr + place, inside[:, None] & (c < channels)[None, :], other=0.0).to(tl.float32)
        if SHARED:
            value *= 1.0 / (_seen(column, width, RADIUS) * _seen(h, height, RADIUS))[:, None]
        total += value
    return total


@triton.jit
def _window_sum(ptr, h, columns, c, height, width, channels, RADIUS: tl.constexpr, SHARED: tl.constexpr):
    """The sums [COLUMNS, CHANNELS] of the windows around row h and each column; see `_row_sum`."""
    total = tl.zeros((columns.shape[0], c.shape[0]), tl.float32)
    for row in range(h - RADIUS, h + RADIUS + 1):
        total += _row_sum(ptr, row, columns, c, height, width, channels, RADIUS, SHARED)
    return total


@triton.jit
def _forward(
    x_ptr, factor_ptr, rstd_ptr, out_ptr, height, width, channels,
    RADIUS: tl.constexpr, RESIDUAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """out = factor * rstd * (pool(x) - x), plus x where RESIDUAL."""
    image, _, first, columns, c = _place(height, width, channels, ROWS, COLUMNS, CHANNELS)
    x_ptr += image * height * width * channels
    out_ptr += image * height * width * channels
    inside = (columns < width)[:, None] & (c < channels)[None, :]
    factor = tl.load(factor_ptr + image * channels + c, c < channels, other=0.0) * tl.load(rstd_ptr + image)
    for h in range(first, tl.minimum(first + ROWS, height)):
        total = _window_sum(x_ptr, h, columns, c, height, width, channels, RADIUS, False)
        share = 1.0 / (_seen(columns, width, RADIUS) * _seen(h, height, RADIUS))
        place = (h * width + columns)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + place, inside, other=0.0).to(tl.float32)
        out = factor[None, :] * (total * share[:, None] - x)
        if RESIDUAL:
            out += x
        tl.store(out_ptr + place, out, inside)


@triton.jit
def _backward_sums(
    x_ptr, gradient_ptr, sums_ptr, height, width, channels,
    RADIUS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """sums[b, tile, c]: gradient * (pool(x) - x), added up over the positions of each tile."""
    image, tile, first, columns, c = _place(height, width, channels, ROWS, COLUMNS, CHANNELS)
    x_ptr += image * height * width * channels
    gradient_ptr += image * height * width * channels
    inside = (columns < width)[:, None] & (c < channels)[None, :]
    sums = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    for h in range(first, tl.minimum(first + ROWS, height)):
        total = _window_sum(x_ptr, h, columns, c, height, width, channels, RADIUS, False)
        share = 1.0 / (_seen(columns, width, RADIUS) * _seen(h, height, RADIUS))
        place = (h * width + columns)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + place, inside, other=0.0).to(tl.float32)
        gradient = tl.load(gradient_ptr + place, inside, other=0.0).to(tl.float32)
        sums += gradient * (total * share[:, None] - x)
    tiles = tl.cdiv(height, ROWS) * tl.cdiv(width, COLUMNS)
    tl.store(sums_ptr + (image * tiles + tile) * channels + c, tl.sum(sums, 0), c < channels)


@triton.jit
def _backward(
    x_ptr, gradient_ptr, factor_ptr, mean_ptr, rstd_ptr, slope_ptr, out_ptr, height, width, channels,
    RADIUS: tl.constexpr, RESIDUAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The gradient of x: factor * rstd * (the adjoint of pool(x) - x) + slope * (x - mean), plus the gradient of out
    where RESIDUAL. slope * (x - mean) is what goes through rstd."""
    image, _, first, columns, c = _place(height, width, channels, ROWS, COLUMNS, CHANNELS)
    x_ptr += image * height * width * channels
    gradient_ptr += image * height * width * channels
    out_ptr += image * height * width * channels
    inside = (columns < width)[:, None] & (c < channels)[None, :]
    factor = tl.load(factor_ptr + image * channels + c, c < channels, other=0.0) * tl.load(rstd_ptr + image)
    mean, slope = tl.load(mean_ptr + image), tl.load(slope_ptr + image)
    for h in range(first, tl.minimum(first + ROWS, height)):
        total = _window_sum(gradient_ptr, h, columns, c, height, width, channels, RADIUS, True)
        place = (h * width + columns)[:, None] * channels + c[None, :]
        x = tl.load(x_ptr + place, inside, other=0.0).to(tl.float32)
        gradient = tl.load(gradient_ptr + place, inside, other=0.0).to(tl.float32)
        out = factor[None, :] * (total - gradient) + slope * (x - mean)
        if RESIDUAL:
            out += gradient
        tl.store(out_ptr + place, out, inside)


# ---------------------------------------------------------------------------------------------------------------------
# The operator. torch.compile sees it as one, with the types and shapes that the functions `register_fake` say.


@torch.library.custom_op("metaformer_ablate::norm_pool", mutates_args=())
def norm_pool(x: Tensor, factor: Tensor, mean: Tensor, rstd: Tensor, size: int, residual: bool) -> Tensor:
    """factor * rstd * (pool(x) - x), plus x where `residual`, of x [B, C, H, W] in channels_last (else it is copied).

    `mean` and `rstd` [B], fp32, have to be those of x. The gradient of x is that of the whole, the way through them
    included; they get none of their own. `size` is the side of the window, odd. The result has the wider of the types
    of x and `factor` [B, C], as the plain modules have it.
    """
    if x.dtype == torch.float64:
        raise TypeError("norm_pool computes in fp32, which is too little for a map of float64")
    x = x.contiguous(memory_format=torch.channels_last)
    factor = factor.contiguous()  # it may be one row for all images
    out = _empty(x, factor)
    _launch(_forward, x, size, (x, factor, rstd, out), RESIDUAL=residual)
    return out


@torch.library.custom_op("metaformer_ablate::norm_pool_backward", mutates_args=())
def norm_pool_backward(
    gradient: Tensor, x: Tensor, factor: Tensor, mean: Tensor, rstd: Tensor, size: int, residual: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of x and `factor`."""
    x = x.contiguous(memory_format=torch.channels_last)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    factor = factor.contiguous()
    batch, channels, height, width = x.shape
    tile = _tile(channels, height, width)
    sums = rstd.new_empty(batch, triton.cdiv(height, tile["ROWS"]) * triton.cdiv(width, tile["COLUMNS"]), channels)
    _launch(_backward_sums, x, size, (x, gradient, sums))
    sums = sums.sum(1) * rstd[:, None]  # [B, C]
    slope = (factor * sums).sum(1, dtype=torch.float32) * rstd.square() / -(channels * height * width)
    out = torch.empty_like(x)
    _launch(_backward, x, size, (x, gradient, factor, mean, rstd, slope, out), RESIDUAL=residual)
    return out, sums.to(factor.dtype)


def _empty(x: Tensor, factor: Tensor) -> Tensor:
    wider = torch.promote_types(x.dtype, factor.dtype)
    return torch.empty_like(x, dtype=wider, memory_format=torch.channels_last)


norm_pool.register_fake(lambda x, factor, mean, rstd, size, residual: _empty(x, factor))
norm_pool_backward.register_fake(
    lambda gradient, x, factor, mean, rstd, size, residual: (
        torch.empty_like(x, memory_format=torch.channels_last),
        torch.empty_like(factor, memory_format=torch.contiguous_format),
    )
)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.size, ctx.residual = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    of_x, of_factor = norm_pool_backward(gradient, *ctx.saved_tensors, ctx.size, ctx.residual)
    return of_x, of_factor, None, None, None, None


norm_pool.register_autograd(_gradients, setup_context=_save)


def _tile(channels: int, height: int, width: int) -> dict[str, int]:
    """What a program takes of a map: 512 numbers of a row, four a thread, of at most 16 rows."""
    c = min(triton.next_power_of_2(channels), 64)
    columns = min(triton.next_power_of_2(width), 512 // c)
    c = min(triton.next_power_of_2(channels), 512 // columns)
    return {"ROWS": triton.cdiv(height, triton.cdiv(height, 16)), "COLUMNS": columns, "CHANNELS": c}


def _launch(kernel: Any, x: Tensor, size: int, tensors: tuple[Tensor, ...], **constants: bool) -> None:
    batch, channels, height, width = x.shape
    tile = _tile(channels, height, width)
    programs = triton.cdiv(height, tile["ROWS"]) * triton.cdiv(width, tile["COLUMNS"])
    programs *= batch * triton.cdiv(channels, tile["CHANNELS"])
    radius = min(size // 2, max(height, width) - 1)  # a wider window sees no more
    with torch.cuda.device_of(x):  # Triton takes the current device
        kernel[(programs,)](*tensors, height, width, channels, RADIUS=radius, **tile, **constants, num_warps=4)


# ---------------------------------------------------------------------------------------------------------------------
# The block


class PoolingBlock(MetaFormerBlock):
    """A block of MLN and pooling whose first half is the operator above. Its parameters and their names are those of
    the plain block, its result and gradients the same up to rounding."""

    def __init__(self, spec: ModelSpec, site: Site, mixer: str, drop_path: float, res_scale: float | None):
        super().__init__(spec, site, mixer, drop_path, res_scale)
        self.pool_size = cast(int, site.pool_size)

    def mix(self, x: Tensor) -> Tensor:
        norm = cast(ModifiedLayerNorm, self.norm1)
        factor: Tensor = norm.weight
        if norm.bias is not None:  # it cancels, but has a gradient, of zero
            factor = factor + 0.0 * norm.bias
        factor = factor.view(1, -1, 1, 1).expand(x.shape[0], -1, 1, 1)  # [B, C, 1, 1]
        # Both only scale, so they may as well scale the factor; the masks are drawn as for the map.
        factor = self.drop_path1(self.layer_scale1(factor)).flatten(1)  # [B, C]
        var, mean = torch.var_mean(x.detach().float(), (1, 2, 3), correction=0)
        rstd = (var + (norm.eps or 0.0)).rsqrt()
        plain = isinstance(self.res_scale1, nn.Identity)
        y = norm_pool(x, factor, mean, rstd, self.pool_size, self.residual and plain)
        return self.res_scale1(x) + y if self.residual and not plain else y


# The block in place of MetaFormerBlock for a norm and a token mixer.
FUSED: Mapping[tuple[str | None, str], type[MetaFormerBlock]] = {("mln", "pooling"): PoolingBlock}
