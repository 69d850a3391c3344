"""Anchors, matches and divisors against mmdet's formulas and examples worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.models.detection.image_list import ImageList

from metaformer_ablate.tasks.detection.matching import Anchors, MaxIouMatcher, match, shared_mean


def test_anchors_are_those_of_mmdet_neither_rounded_nor_of_inferred_strides() -> None:
    strides = (8, 16, 32, 64, 128)
    # 800 x 800 padded to 32: P6 has 13 positions and P7 7, of which torchvision infers strides of 61 and 114.
    sizes = [100, 50, 25, 13, 7]
    maps = [torch.zeros(1, 1, size, size, dtype=torch.bfloat16) for size in sizes]
    (anchors,) = Anchors(strides, 4, 3)(ImageList(torch.zeros(1, 3, 800, 800), [(800, 800)]), maps)
    assert anchors.shape == (9 * sum(size**2 for size in sizes), 4) and anchors.dtype == torch.float32

    # mmdet's AnchorGenerator of octave_base_scale=4, scales_per_octave=3, ratios 0.5, 1 and 2, center_offset=0.
    expected = []
    for size, stride in zip(sizes, strides, strict=True):
        for row in range(size):
            for column in range(size):
                for ratio in (0.5, 1.0, 2.0):
                    for octave in range(3):
                        side = 4 * 2 ** (octave / 3) * stride
                        w, h = side / math.sqrt(ratio), side * math.sqrt(ratio)
                        x, y = column * stride, row * stride
                        expected.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    torch.testing.assert_close(anchors, torch.tensor(expected), rtol=0, atol=1e-3)


def test_a_box_takes_its_best_anchors_and_the_later_box_has_them() -> None:
    quality = torch.tensor(
        [
            [0.60, 0.45, 0.30, 0.20, 0.00],
            [0.10, 0.46, 0.35, 0.35, 0.00],  # its best anchor, 1, is nearer to nothing else
            [0.00, 0.00, 0.48, 0.10, 0.00],
            [0.00, 0.00, 0.48, 0.00, 0.00],  # ties with box 2 for anchor 2
        ]
    )
    assert MaxIouMatcher(0.5, 0.4, 0.0)(quality).tolist() == [0, 1, 3, -1, -1]
    # From 0.47 on: box 1 takes none, and anchor 1 lies between the thresholds.
    assert MaxIouMatcher(0.5, 0.4, 0.47)(quality).tolist() == [0, -2, 3, -1, -1]
    # An anchor goes to the box that takes it, though it overlaps another one more.
    assert MaxIouMatcher(0.7, 0.3, 0.3)(torch.tensor([[0.8, 0.7], [0.1, 0.6]])).tolist() == [0, 1]


def test_anchors_beyond_the_padding_of_an_image_are_left_out() -> None:
    matcher = MaxIouMatcher(0.5, 0.4, 0.0)
    anchors = torch.tensor([[0.0, 0, 10, 10], [59, 0, 69, 10], [58, 0, 68, 10], [0, 27, 10, 37]])
    boxes = torch.tensor([[60.0, 0, 69, 10]])  # its best anchor, 1, has its centre at 64: not in an image padded to 64
    assert match(matcher, boxes, anchors, (32, 64)).tolist() == [-1, -2, 0, -2]
    assert match(matcher, boxes, anchors, (64, 96)).tolist() == [-1, 0, 0, -1]
    assert match(matcher, torch.zeros(0, 4), anchors, (32, 64)).tolist() == [-1, -2, -1, -2]


@pytest.mark.parametrize(
    ("images", "expected"),
    [(None, 10 / 11), (3, 10 / 11), (2, ((1 + 4) / (1 + 5) + (2 + 3) / (2 + 3)) / 2), (1, (1 + 1 + 1 + 4 / 5) / 4)],
)
def test_images_of_a_group_share_a_divisor(images: int | None, expected: float) -> None:
    sums = [torch.tensor(value) for value in (1.0, 2.0, 3.0, 4.0)]
    assert shared_mean(sums, [1, 2, 3, 5], images).item() == pytest.approx(expected)
    assert shared_mean([torch.tensor(0.0)], [0], images).item() == 0
