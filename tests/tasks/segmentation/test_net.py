"""Semantic FPN: against mmsegmentation's formulas written out, its start, and the parameters that table 4 prints."""

from __future__ import annotations

import math

import pytest
import torch
from specs import spec_of
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.cost.cost import count
from metaformer_ablate.cost.counting import count_parts
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.tasks.segmentation.net import Head, Neck, build_net, cost_parts, initialise

WIDTHS, STRIDES = (8, 12, 16, 20), (4, 8, 16, 32)


def maps(height: int, width: int) -> list[Tensor]:
    """Of an image of these sides: rounded up, as the authors' convolutions do."""
    sizes = [(math.ceil(height / s), math.ceil(width / s)) for s in STRIDES]
    return [torch.randn(2, c, *size) for c, size in zip(WIDTHS, sizes, strict=True)]


def written_out_neck(neck: Neck, given: list[Tensor]) -> list[Tensor]:
    """mmseg.models.necks.FPN: lateral convolutions, nearest enlarging and sums from the top, output convolutions."""
    laterals = [F.conv2d(x, block[0].weight, block[0].bias) for x, block in zip(given, neck.inner_blocks, strict=True)]
    for i in range(len(laterals) - 1, 0, -1):
        above = F.interpolate(laterals[i], size=laterals[i - 1].shape[2:], mode="nearest")
        laterals[i - 1] = laterals[i - 1] + above
    return [
        F.conv2d(x, block[0].weight, block[0].bias, padding=1)
        for x, block in zip(laterals, neck.layer_blocks, strict=True)
    ]


def written_out_head(head: Head, given: list[Tensor]) -> Tensor:
    """mmseg.models.decode_heads.FPNHead: max(1, log2(stride / 4)) convolutions per level, then the sum."""
    total = None
    for stride, x, branch in zip(STRIDES, given, head.branches, strict=True):
        convolutions = [m for m in branch if isinstance(m, nn.Conv2d)]
        norms = [m for m in branch if isinstance(m, nn.BatchNorm2d)]
        assert len(convolutions) == len(norms) == max(1, int(math.log2(stride) - math.log2(4)))
        for convolution, norm in zip(convolutions, norms, strict=True):
            assert convolution.bias is None
            x = F.conv2d(x, convolution.weight, padding=1)
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5).relu()
            if stride != 4:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        if total is None:
            total = x
        else:
            total = total + F.interpolate(x, size=total.shape[2:], mode="bilinear", align_corners=False)
    assert total is not None
    return F.conv2d(total, head.classifier.weight, head.classifier.bias)


@pytest.mark.parametrize("size", [(64, 96), (50, 75)])
def test_neck_and_head_are_mmsegmentations(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    neck, head = Neck(WIDTHS, 16), Head(STRIDES, 16, 8, 5, 0.1, None)
    for norm in head.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean), nn.init.uniform_(norm.running_var, 0.5, 2)
    neck.eval(), head.eval()
    given = maps(*size)
    levels = neck(given)
    for found, wanted in zip(levels, written_out_neck(neck, given), strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)
    found = head(levels)
    assert found.shape == (2, 5, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert torch.allclose(found, written_out_head(head, levels), atol=1e-5)


def test_strides_begin_where_the_backbone_begins() -> None:
    head = Head((2, 4, 8, 16), 16, 8, 5, 0.1, 1)
    assert [sum(isinstance(m, nn.Conv2d) for m in branch) for branch in head.branches] == [1, 1, 2, 3]


def test_the_start_is_mmsegmentations() -> None:
    torch.manual_seed(0)
    neck, head = Neck((64, 64, 64, 64), 256), Head(STRIDES, 256, 128, 150, 0.1, None)
    initialise(neck, head)
    lateral, output = neck.inner_blocks[0][0], neck.layer_blocks[0][0]
    # Kaiming's normal of what goes out: sqrt(2 / (kernel * kernel * channels out))
    for convolution, kernel in ((lateral, 1), (output, 3), (head.branches[1][0], 3)):
        wanted = math.sqrt(2 / (kernel**2 * convolution.out_channels))
        assert convolution.weight.std().item() == pytest.approx(wanted, rel=0.03)
        assert convolution.bias is None or (convolution.bias == 0).all()
    assert head.classifier.weight.std().item() == pytest.approx(0.01, rel=0.03)
    assert (head.classifier.bias == 0).all()


# params_m of table 4 as it is printed; ResNet-18 does not round to it, and S24's is a misprint.
def test_parameters_are_those_of_table_4() -> None:
    chosen = plan("ade20k_backbones", "ade20k_semantic_fpn")
    assert len(chosen.specs) == 14 and not chosen.not_applicable
    found = {}
    for name, spec in chosen.specs.items():
        net = build_net(spec.model_copy(update={"model": spec.model.model_copy(update={"init_from": None})}))
        found[name] = sum(p.numel() for p in net.parameters() if p.requires_grad) / 1e6
    for name, params in found.items():
        printed = chosen.experiment.rows[name].paper["params_m"]
        if name == "poolformer_s24":
            assert params == pytest.approx(25.144, abs=5e-4) and printed == 23.2
            assert any("misprint" in note for note in chosen.experiment.rows[name].notes)
        else:
            assert params == pytest.approx(printed, abs=0.1), name
    # As they were measured beside the authors' modules.
    for name, params in {
        "poolformer_s12": 15.670,
        "poolformer_s36": 34.617,
        "pvt_tiny": 16.982,
        "pvt_large": 65.122,
        "resnet18": 15.427,
        "resnet50": 28.515,
        "resnext101_64x4d": 86.394,
    }.items():
        assert found[name] == pytest.approx(params, abs=1e-3), name


def test_the_paper_s_size_is_counted_part_by_part() -> None:
    spec = plan("ade20k_backbones", "ade20k_semantic_fpn").specs["poolformer_s12"]
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"init_from": None})})
    net = build_net(spec)
    cost = count_parts(net, cost_parts(net, spec))
    assert list(cost.macs_by_part) == ["backbone", "neck", "head"]
    found = {name: round(macs / 1e9, 1) for name, macs in cost.macs_by_part.items()}
    assert found["backbone"] == 9.5 and found["neck"] == 13.4 and found["head"] == pytest.approx(8.1, abs=0.15)
    assert sum(cost.macs_by_part.values()) == cost.macs


def test_costs_of_a_batch_norm_on_a_map_of_one_token() -> None:
    """One image has no statistics there: counting is no training."""
    words = ("model.norm=batch_norm", "data.image_size=32")
    assert count(spec_of(words=words, recipe="scenes_segmentation")).macs > 0
