"""Linear layers and average pooling through the operators that are fastest on a CPU. What is computed is the same up to
rounding, and wherever a model is traced, compiled or exported the plain operators stand, so that counts, kernels and
exported files know nothing of it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# With one thread torch leaves 1 x 1 convolutions of smaller batches to the library that has the matrix products.
_ROWS = 16


def _eager_on_cpu(x: Tensor) -> bool:
    """Whether x is computed now and by torch's own kernels for a CPU, in its own precision."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and x.device.type == "cpu"
        and type(x) is Tensor
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _convolutions_are_faster() -> bool:
    """Whether a 1 x 1 convolution beats the matrix product it is: on CPUs with AVX-512, where oneDNN has it.

    Matrix products in fp32 go to MKL, which uses no more than AVX2 on chips that are not Intel's: half the speed of
    oneDNN's convolution on an AMD EPYC with AVX-512. With AVX2 alone the convolution gains nothing.
    """
    return torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def cpu_operators() -> dict[str, str]:
    """What this process computes with on its CPU: the instruction set that torch uses, and what linear layers are in
    fp32. Two machines of one CPU's name can differ in both: a hypervisor or ATEN_CPU_CAPABILITY hides instructions."""
    linear = "convolution" if _convolutions_are_faster() else "matrix product"
    return {"instructions": torch.backends.cpu.get_cpu_capability(), "linear": linear}


class Linear(nn.Linear):
    """nn.Linear over the last axis of [..., in], as a 1 x 1 convolution where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        if not self._as_convolution(x):
            return F.linear(x, self.weight, self.bias)
        pixels = x.view(_ROWS, 1, -1, self.in_features).permute(0, 3, 1, 2)  # [16, in, 1, N / 16]
        y = F.conv2d(pixels, self.weight[:, :, None, None], self.bias)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:-1], self.out_features)

    def _as_convolution(self, x: Tensor) -> bool:
        divides = x.numel() > 0 and x.numel() // self.in_features % _ROWS == 0
        fast = _eager_on_cpu(x) and _convolutions_are_faster()
        return divides and fast and x.dtype == torch.float32 and x.is_contiguous()


@cache
@torch.inference_mode(False)
def _windows(length: int, size: int, dtype: torch.dtype) -> Tensor:
    """[length, length]: row i is the mean over the positions within size // 2 of i that exist."""
    at = torch.arange(length)
    inside = ((at[:, None] - at).abs() <= size // 2).to(dtype)
    return inside / inside.sum(1, keepdim=True)


def pool_minus_input(x: Tensor, pool: nn.AvgPool2d) -> Tensor:
    """`pool(x) - x` for [B, C, H, W] and a pool of an odd size, stride 1 and padding size // 2, outside not counted.

    The mean over a window is the mean over its rows of the means over its columns, so it is a matrix product along each
    side, whose cost does not grow with the window. For windows from 5 on that is faster than torch's pooling, unless
    the map is much larger than the window, or no larger than half of it.
    """
    size = pool.kernel_size
    batch, dim, height, width = x.shape
    assert isinstance(size, int)
    if not (
        size >= 5
        and _eager_on_cpu(x)
        and x.dtype in (torch.float32, torch.float64)
        and min(height, width) > size // 2
        and height + width <= 3 * size**2
        and x.is_contiguous(memory_format=torch.channels_last)
    ):
        return pool(x) - x
    rows = x.permute(0, 2, 3, 1).view(batch, height, width * dim)
    down, across = _windows(height, size, x.dtype), _windows(width, size, x.dtype)
    mean = torch.bmm(down.expand(batch, height, height), rows).view(batch * height, width, dim)
    mixed = torch.baddbmm(rows.view(mean.shape), across.expand(batch * height, width, width), mean, beta=-1)
    return mixed.view(batch, height, width, dim).permute(0, 3, 1, 2)
