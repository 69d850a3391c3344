"""The least time that a GPU needs for the blocks of a PoolFormer: bytes through memory, operations of matrix products.

What is taken for possible: any element-wise work, pooling and sum rides along with a pass that has its input at hand,
also with a matrix product, before it and after it. What is not: a value that sums over a whole image or batch is known
once the pass that adds it up is over, so whoever needs it begins another pass; and each matrix product is a pass, for
its hidden map is too wide to stay on the chip. What a matrix product reads or writes of the hidden map, 4 C wide, is in
bf16, as is the gradient that it leaves; the maps between blocks are in the type of the residual stream, which under
autocast is fp32: MLN computes in fp32, and what is added to it follows.

Let x be the map before a block, u after its first half, y after it, p the hidden map before GELU, n = MLN(u). Forward:

    pooling      reads x, whose statistics the pass before has added up, writes u, adds up its statistics
    fc1          reads u, writes p = fc1(n)
    fc2          reads p and u, writes y = u + scale * fc2(GELU(p)), adds up its statistics

Backward, where d is for the gradient:

    fc2 input    reads dy and p, writes dp
    fc2 weights  reads dy and p; gives the gradients of fc2 and LayerScale
    fc1 input    reads dp and u, writes dn in bf16, adds up what MLN's gradient needs
    fc1 weights  reads dp and u; gives those of fc1
    norm         reads dy, dn, u and x, writes du, adds up du * (pool(x) - x)
    pooling      reads du and x, writes dx

Weights and statistics are left out (some percent at most), and so are stem, down-samplings, head and optimizer: the
floor of a whole step is higher. The first block of a stage gets its x from a convolution, under autocast in bf16; it is
counted as the others, which makes 2.4% too much of S12. Without a backward pass nobody needs p, and a kernel that kept
it on the chip would go below the forward floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BF16 = 2  # bytes


@dataclass(frozen=True)
class Rates:
    """What a GPU was measured to do: bytes through memory and bf16 operations (two a multiply-add), a second."""

    bytes: float
    operations: float


@dataclass(frozen=True)
class Pass:
    """Maps that a pass reads and writes: of the residual stream, in bf16, and hidden ones; and matrix products."""

    name: str
    stream: int
    bf16: int = 0
    hidden: int = 0
    products: int = 0


FORWARD = (
    Pass("pooling", stream=2),
    Pass("fc1", stream=1, hidden=1, products=1),
    Pass("fc2", stream=2, hidden=1, products=1),
)
BACKWARD = (
    Pass("fc2 input", stream=1, hidden=2, products=1),
    Pass("fc2 weights", stream=1, hidden=1, products=1),
    Pass("fc1 input", stream=1, bf16=1, hidden=1, products=1),
    Pass("fc1 weights", stream=1, hidden=1, products=1),
    Pass("norm", stream=4, bf16=1),
    Pass("pooling", stream=3),
)


@dataclass(frozen=True)
class Work:
    """Of one pass: bytes and operations."""

    name: str
    bytes: int
    operations: int

    def seconds(self, rates: Rates) -> float:
        """The longer of the two, as if each hid the other wholly."""
        return max(self.bytes / rates.bytes, self.operations / rates.operations)


def block(
    passes: Sequence[Pass], *, batch: int, tokens: int, channels: int, ratio: int = 4, stream_bytes: int = 4
) -> list[Work]:
    """The work of each pass over a block. `stream_bytes` a number of the residual stream: 4 under autocast."""
    map_size = batch * tokens * channels
    return [
        Work(
            of.name,
            map_size * (stream_bytes * of.stream + BF16 * of.bf16 + BF16 * ratio * of.hidden),
            2 * map_size * ratio * channels * of.products,
        )
        for of in passes
    ]
