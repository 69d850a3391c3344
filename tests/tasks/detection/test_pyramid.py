"""The pyramid, padding, and what is found in the pixels of the original."""

from __future__ import annotations

import math

import pytest
import torch
from small_detectors import Body
from torch import nn
from torch.nn import functional as F

from metaformer_ablate.tasks.detection.mask_rcnn import RegionAlign, mask_targets
from metaformer_ablate.tasks.detection.pyramid import Padding, Pyramid, TwoFurtherLevels, head_norm, paste, to_original


def test_p6_is_of_the_last_map_and_p7_of_p6_without_a_relu() -> None:
    torch.manual_seed(0)
    pyramid = Pyramid(Body((1, 2, 3)), 16, None, further=True)  # the body's maps are as wide as the pyramid
    extra = pyramid.fpn.extra_blocks
    assert isinstance(extra, TwoFurtherLevels)
    image = torch.randn(2, 3, 128, 96)
    maps = list(pyramid(image).values())
    p6 = F.conv2d(pyramid.body(image)[-1], extra.p6[0].weight, extra.p6[0].bias, stride=2, padding=1)
    p7 = F.conv2d(p6, extra.p7[0].weight, extra.p7[0].bias, stride=2, padding=1)
    assert torch.equal(maps[3], p6) and torch.equal(maps[4], p7) and (p6 < 0).any()
    assert [found.shape[-2:] for found in maps] == [(16, 12), (8, 6), (4, 3), (2, 2), (1, 1)]
    assert pyramid.strides == (8, 16, 32, 64, 128)


def test_levels_are_the_sum_of_a_lateral_and_the_level_above() -> None:
    torch.manual_seed(0)
    pyramid = Pyramid(Body(), 8, None, further=False)
    maps = [torch.randn(1, 16, side, side + 1) for side in (25, 13, 7, 4)]  # sizes that do not double
    lateral = [
        F.conv2d(found, block[0].weight, block[0].bias)
        for found, block in zip(maps, pyramid.fpn.inner_blocks, strict=True)
    ]
    for i in (2, 1, 0):
        lateral[i] = lateral[i] + F.interpolate(lateral[i + 1], size=lateral[i].shape[-2:], mode="nearest")
    expected = [
        F.conv2d(found, block[0].weight, block[0].bias, padding=1)
        for found, block in zip(lateral, pyramid.fpn.layer_blocks, strict=True)
    ]
    found = pyramid.maps(maps)
    for one, other in zip(found, [*expected, expected[-1][..., ::2, ::2]], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("norm", ["none", "group_norm"])
def test_convolutions_start_from_xaviers_uniform(norm: str) -> None:
    torch.manual_seed(0)
    pyramid = Pyramid(Body(), 64, head_norm(norm), further=True)
    convolutions = [module for module in pyramid.fpn.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 10
    for layer in convolutions:
        fan = layer.weight[0].numel() + layer.weight.shape[0] * layer.weight[0, 0].numel()
        limit = math.sqrt(6 / fan)
        assert limit * 0.95 < layer.weight.abs().max() <= limit
        assert (layer.bias is None) == (norm == "group_norm")
        assert layer.bias is None or not layer.bias.any()
    norms = [module for module in pyramid.fpn.modules() if isinstance(module, nn.GroupNorm)]
    assert {layer.num_groups for layer in norms} == ({8} if norm == "group_norm" else set())


def test_images_are_padded_with_zeros_to_a_multiple_of_32() -> None:
    images = [torch.ones(3, 33, 64), torch.ones(3, 20, 70)]
    given = [{"boxes": torch.zeros(0, 4)}, {"boxes": torch.zeros(0, 4)}]
    batch, targets = Padding(torch.channels_last)(images, given)
    assert batch.tensors.shape == (2, 3, 64, 96) and batch.tensors.is_contiguous(memory_format=torch.channels_last)
    assert batch.tensors.sum() == 3 * (33 * 64 + 20 * 70) and batch.image_sizes == [(33, 64), (20, 70)]
    assert targets is not None and [target["padded"] for target in targets] == [(64, 64), (32, 96)]
    assert "padded" not in given[0]


def test_what_is_found_is_given_in_pixels_of_the_original() -> None:
    found = {"boxes": torch.tensor([[10.0, 20, 30, 40]]), "scores": torch.tensor([0.5])}
    scaled = to_original(found, (100, 200), (50, 400))
    assert scaled["boxes"].tolist() == [[20, 10, 60, 20]] and scaled["scores"] is found["scores"]
    masks = to_original(found | {"masks": torch.ones(1, 1, 28, 28)}, (100, 200), (50, 400))["masks"]
    assert masks.shape == (1, 50, 400) and masks.dtype == torch.bool


def test_a_full_mask_covers_the_pixels_whose_centres_are_in_its_box() -> None:
    boxes = torch.tensor([[2.4, 3.6, 9.5, 8.4], [-5.0, -3, 4.2, 30], [30, 30, 40, 40]])
    masks = paste(torch.ones(3, 1, 28, 28), boxes, (12, 10))
    y, x = torch.meshgrid(torch.arange(12) + 0.5, torch.arange(10) + 0.5, indexing="ij")
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        assert torch.equal(mask, (x >= left) & (x <= right) & (y >= top) & (y <= bottom))
    half = torch.zeros(1, 1, 28, 28)
    half[..., :14] = 1  # the left half of the box
    mask = paste(half, torch.tensor([[0.0, 0, 8, 8]]), (8, 8))
    assert torch.equal(mask[0], (torch.arange(8) < 4).expand(8, 8))


def test_regions_are_read_where_they_lie_and_from_the_level_of_their_size() -> None:
    strides = (4, 8, 16, 32)
    # Each level holds, at the centre of its positions, their x, their y and its own stride.
    maps = {}
    for i, stride in enumerate(strides):
        side = 512 // stride
        centre = (torch.arange(side) + 0.5) * stride
        x, y, own = centre.expand(side, side), centre[:, None].expand(side, side), torch.full((side, side), stride)
        maps[str(i)] = torch.stack([x, y, own])[None]
    boxes = torch.tensor([[100.0, 60, 150, 130], [40, 50, 200, 190], [100, 100, 340, 330], [20, 20, 490, 480]])
    pooled = RegionAlign(strides, 7)(maps, [boxes], [(512, 512)])
    assert pooled[:, 2].amax((1, 2)).tolist() == [4, 8, 16, 32] == pooled[:, 2].amin((1, 2)).tolist()
    steps = (torch.arange(7) + 0.5) / 7
    for found, (left, top, right, bottom) in zip(pooled, boxes, strict=True):
        torch.testing.assert_close(found[0], (left + steps * (right - left)).expand(7, 7))
        torch.testing.assert_close(found[1], (top + steps * (bottom - top))[:, None].expand(7, 7))
    none = RegionAlign(strides, 7)(maps, [boxes[:0]], [(512, 512)])
    assert none.shape == (0, 3, 7, 7)


def test_mask_targets_are_zeros_and_ones_of_the_right_box() -> None:
    masks = torch.zeros(2, 40, 40, dtype=torch.uint8)
    masks[0, :, :20] = 1
    masks[1, 10:, :] = 1
    boxes = torch.tensor([[6.0, 4, 34, 32], [0, 0, 28, 28]])
    found = mask_targets(masks, boxes, torch.tensor([0, 1]), 28)
    assert torch.equal(found[0], (torch.arange(28) < 14).float().expand(28, 28))
    assert torch.equal(found[1], (torch.arange(28) >= 10).float()[:, None].expand(28, 28))


def test_regions_keep_their_place_in_bf16() -> None:
    """A coordinate above 1024 would be a multiple of 8 in bf16."""
    strides = (4, 8, 16, 32)
    maps = {str(i): torch.randn(1, 8, 1344 // stride, 1344 // stride) for i, stride in enumerate(strides)}
    boxes = [torch.tensor([[1210.3, 612.7, 1231.8, 640.1], [1030.0, 1100.0, 1300.0, 1322.0]])]
    rounded = {name: level.bfloat16() for name, level in maps.items()}
    align = RegionAlign(strides, 7)
    wanted = align({name: level.float() for name, level in rounded.items()}, boxes, [(1344, 1344)])
    with torch.autocast("cpu", torch.bfloat16):
        found = align(rounded, boxes, [(1344, 1344)])
    torch.testing.assert_close(found.float(), wanted, rtol=1e-2, atol=1e-2)
