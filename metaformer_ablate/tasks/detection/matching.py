"""Anchors, which of them stands for which box, and by what a loss is divided, as mmdet 2.19 has it."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from metaformer_ablate.data.sampling import micro_batch_rows

RATIOS = (0.5, 1.0, 2.0)  # height over width


class Anchors(AnchorGenerator):
    """Anchors of side scale x stride x 2^(i / octaves) in three shapes around each position of each level.

    Not rounded, centred at stride x index, at the strides of the levels whatever the size of the image, in float32:
    torchvision rounds their corners, and takes for a stride the image's side over the map's.
    """

    def __init__(self, strides: tuple[int, ...], scale: float, octaves: int):
        self.strides = strides
        sizes = tuple(tuple(scale * stride * 2 ** (i / octaves) for i in range(octaves)) for stride in strides)
        super().__init__(sizes, (RATIOS,) * len(strides))

    def generate_anchors(  # type: ignore[override]
        self,
        scales: list[float],
        aspect_ratios: list[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008  # torchvision's signature
    ) -> Tensor:
        """[ratios x scales, 4] around (0, 0)."""
        heights = torch.as_tensor(aspect_ratios, dtype=dtype, device=device).sqrt()
        sides = torch.as_tensor(scales, dtype=dtype, device=device)
        height, width = (heights[:, None] * sides).flatten(), (1 / heights[:, None] * sides).flatten()
        return torch.stack([-width, -height, width, height], dim=1) / 2

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """[N, 4] for each image: by level, row, column, shape and side."""
        self.set_cell_anchors(torch.float32, feature_maps[0].device)
        sizes = [list(found.shape[-2:]) for found in feature_maps]
        anchors = torch.cat(self.grid_anchors(sizes, [[stride, stride] for stride in self.strides]))  # type: ignore[arg-type]
        return [anchors] * len(image_list.image_sizes)


class MaxIouMatcher(Matcher):
    """mmdet's MaxIoUAssigner: by the highest IoU, then each box takes the anchors that overlap it most.

    A box does so where that IoU is at least `least`; of two boxes that take one anchor the later has it. In
    torchvision any box does, and the anchor goes to the box that it overlaps most itself.
    """

    def __init__(self, high: float, low: float, least: float):
        super().__init__(high, low, allow_low_quality_matches=True)
        self.least = least

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        best = match_quality_matrix.amax(1, keepdim=True)  # [boxes, 1]
        takes = (match_quality_matrix == best) & (best >= self.least) & (best > 0)
        numbers = torch.arange(1, len(takes) + 1, device=takes.device)[:, None]
        taker = (takes * numbers).amax(0)  # [anchors]: the last box that takes it, from 1
        matches[:] = torch.where(taker > 0, taker - 1, matches)


def match(matcher: Matcher, boxes: Tensor, anchors: Tensor, padded: tuple[int, int]) -> Tensor:
    """For each anchor the index of its box, -1 for background, -2 where it is not trained on. -> [N] int64.

    Anchors centred beyond the image's own padding, (height, width), are not trained on (mmdet's valid flags).
    """
    height, width = padded
    beyond = (anchors[:, 0] + anchors[:, 2] >= 2 * width) | (anchors[:, 1] + anchors[:, 3] >= 2 * height)
    if len(boxes):
        quality = box_iou(boxes, anchors)  # [boxes, N]
        quality[:, beyond] = -1
        matches = matcher(quality)
    else:
        matches = torch.full((len(anchors),), matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
    matches[beyond] = matcher.BETWEEN_THRESHOLDS
    return matches


def shared_mean(sums: list[Tensor], counts: list[int], images: int | None) -> Tensor:
    """The sums of the images over what was counted in them, each group of `images` with one divisor; the mean of it.

    mmdet divides by what the images of one GPU hold together; None: all images of the batch share one divisor. The
    groups are those of `micro_batch_rows`, in whatever parts of an even size a batch is taken.
    """
    rows, size = torch.arange(len(sums)), images or len(sums)
    parts = len(sums) // size if len(sums) % size == 0 else 1
    means = []
    for part in range(parts):
        group = micro_batch_rows(rows, parts, part).tolist()
        means.append(torch.stack([sums[i] for i in group]).sum() / max(sum(counts[i] for i in group), 1))
    return torch.stack(means).mean()
