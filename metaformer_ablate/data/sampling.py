"""Which image comes when: seeds, batches of an epoch, parts of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler


def derive_seed(seed: int, *of: int | str) -> int:
    """A seed of its own for each use: what is drawn for (seed, epoch, step) depends on nothing drawn before."""
    text = ":".join(str(part) for part in (seed, *of))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def micro_batch_rows(whole: Tensor, count: int, at: int) -> Tensor:
    """[B, ...] -> [B / count, ...]: part `at` of the `count` of one size that a batch is taken in.

    Mixup and CutMix pair image i with image B - 1 - i, so a part is rows from both ends of the batch, in which each
    row has its partner at the mirrored place. A part of an odd number of rows cannot be: it is rows that follow.
    """
    size = len(whole) // count
    if count == 1 or size % 2:
        return whole.narrow(0, at * size, size)
    half = size // 2
    return torch.cat([whole.narrow(0, at * half, half), whole.narrow(0, len(whole) - (at + 1) * half, half)])


@dataclass(frozen=True)
class RankShare:
    """What a device takes of each batch: `takes` of `parts`, one after another from `first` on."""

    parts: int
    first: int
    takes: int


class EpochBatches(Sampler):
    """Indices of full batches in an order that follows from (seed, epoch) alone. Lightning calls `set_epoch`.

    Epoch `first_epoch` begins at batch `first_batch`: where a run that is resumed goes on. Each batch comes `repeats`
    times: once for every part of it that a device takes. With a `share` it is those parts that come. Where they are
    `mirrored`, each image is in every other epoch, half of them in the first (alternating flip, arXiv 2404.00498).
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        device: torch.device,
        first_epoch: int = 0,
        first_batch: int = 0,
        repeats: int = 1,
        share: RankShare | None = None,
        mirrored: bool = False,
    ):
        self.count, self.batch_size, self.seed, self.device, self.mirrored = count, batch_size, seed, device, mirrored
        self.steps, self.repeats, self.share = count // batch_size, share.takes if share else repeats, share
        self.first_epoch, self.first_batch = first_epoch, first_batch
        # Lightning makes the first iterator before it says which epoch it is for.
        self.epoch = first_epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.repeats

    def batches(self) -> Tensor:
        """[steps, batch_size]: the indices of each batch of the epoch; index + count where the image is mirrored."""
        order = torch.randperm(self.count, generator=self.generator())[: self.steps * self.batch_size]
        if self.mirrored:
            first = torch.Generator().manual_seed(derive_seed(self.seed, "mirrored"))
            turns = (torch.randint(2, (self.count,), generator=first) + self.epoch) % 2
            order = order + self.count * turns[order]
        return order.view(-1, self.batch_size)

    def generator(self) -> torch.Generator:
        """What the order is drawn from."""
        return torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))

    def __iter__(self) -> Iterator[Tensor]:
        batches = self.batches().to(self.device)
        batches = batches[self.first_batch if self.epoch == self.first_epoch else 0 :]
        if (share := self.share) is None:
            return (batch for batch in batches for _ in range(self.repeats))
        return (micro_batch_rows(batch, share.parts, share.first + i) for batch in batches for i in range(share.takes))


def rank_slices(count: int, batch_size: int, share: int, shares: int) -> list[slice]:
    """The batches of one of `shares` that `count` images are divided in."""
    begin, end = (count * number // shares for number in (share, share + 1))
    return [slice(i, min(i + batch_size, end)) for i in range(begin, end, batch_size)]
