"""Which images are trained on together."""

from __future__ import annotations

import torch
from torch import Tensor

from metaformer_ablate.data.loading import NamedEpochBatches


class PairedBatches(NamedEpochBatches):
    """Batches in which images of one orientation come in pairs, as mmdet's GroupSampler puts two on a GPU: a wide image
    and a high one would both be padded to a large square.

    The images of a pair are rows i and B - 1 - i, so that they stay together in whatever parts of an even size a batch
    is taken (`micro_batch_rows`). Where both orientations are odd in number, one pair is mixed. A batch of an odd size
    has no pairs.
    """

    wide: Tensor  # [count] bool

    def batches(self) -> Tensor:
        if self.batch_size % 2:
            return super().batches()
        generator = self.generator()
        order = torch.randperm(self.count, generator=generator)
        groups = [order[self.wide[order]], order[~self.wide[order]]]
        single = torch.cat([group[len(group) // 2 * 2 :] for group in groups])
        groups += [single] if len(single) == 2 else []
        pairs = torch.cat([group[: len(group) // 2 * 2].view(-1, 2) for group in groups])
        pairs = pairs[torch.randperm(len(pairs), generator=generator)]
        pairs = pairs[: self.steps * self.batch_size // 2].view(self.steps, -1, 2)  # [steps, B / 2, 2]
        return torch.cat([pairs[..., 0], pairs[..., 1].flip(1)], dim=1)
