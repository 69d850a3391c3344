"""The detectors: their losses against torchvision's and mmdet's formulas, what they give, and that they learn."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_detectors import CLASSES, images, mask_rcnn, retinanet, targets
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss
from torchvision.ops import box_iou

from metaformer_ablate.tasks.detection.mask_rcnn import BoxAndMaskHeads, mask_targets
from metaformer_ablate.tasks.detection.proposals import RegionProposals

Detectors = pytest.mark.parametrize("build", [retinanet, mask_rcnn])


@pytest.fixture
def retina_outputs() -> dict[str, Any]:
    net = retinanet()
    batch, padded = net.transform(images(), targets())
    maps = list(net.backbone(batch.tensors).values())
    return {"net": net, "targets": padded, "outputs": net.head(maps), "anchors": net.anchor_generator(batch, maps)}


def test_retinanets_loss_of_one_image_is_torchvisions(retina_outputs: dict[str, Any]) -> None:
    net, outputs, anchors = (retina_outputs[name] for name in ("net", "outputs", "anchors"))
    target = retina_outputs["targets"][0]
    one = {name: value[:1] for name, value in outputs.items()}
    losses = net.compute_loss([target], one, anchors[:1])
    matched = net.proposal_matcher(box_iou(target["boxes"], anchors[0]))
    assert (matched >= 0).sum() > 1
    expected = RetinaNetHead.compute_loss(net.head, [target], one, anchors[:1], [matched])
    torch.testing.assert_close(losses["classification"], expected["classification"])
    torch.testing.assert_close(losses["boxes"], expected["bbox_regression"])  # its default is L1


def test_retinanets_divisor_is_of_the_batch_or_of_a_group(retina_outputs: dict[str, Any]) -> None:
    net, outputs, anchors, padded = (retina_outputs[name] for name in ("net", "outputs", "anchors", "targets"))
    alone = [
        net.compute_loss([target], {name: value[i : i + 1] for name, value in outputs.items()}, anchors[i : i + 1])
        for i, target in enumerate(padded)
    ]
    positives = int((net.proposal_matcher(box_iou(padded[0]["boxes"], anchors[0])) >= 0).sum())
    whole = net.compute_loss(padded, outputs, anchors)
    net.loss_images = 1
    each = net.compute_loss(padded, outputs, anchors)
    for name in whole:
        one, empty = (losses[name] for losses in alone)  # the image without boxes counts as one
        torch.testing.assert_close(whole[name], (one * positives + empty) / (positives + 1))
        torch.testing.assert_close(each[name], (one + empty) / 2)
    assert alone[1]["boxes"] == 0 < alone[1]["classification"]


def test_retinanets_logits_begin_at_one_percent() -> None:
    net = retinanet()
    with torch.no_grad():
        logits = net.head([torch.zeros(1, 16, 4, 4)])["cls_logits"]
    torch.testing.assert_close(logits.sigmoid(), torch.full_like(logits, 0.01))
    assert (net.detections_per_img, net.topk_candidates, net.score_thresh, net.nms_thresh) == (100, 1000, 0.05, 0.5)


def test_the_loss_of_proposals_is_cross_entropy_and_l1_over_what_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    proposals: RegionProposals = mask_rcnn().rpn  # type: ignore[assignment]
    labels = [torch.tensor([1.0, 0, 0, -1, 1]), torch.tensor([0.0, 0, 0, 0, 0])]
    drawn = [
        [torch.tensor([1, 0, 0, 0, 1]), torch.zeros(5, dtype=torch.uint8)],
        [torch.tensor([0, 1, 0, 0, 0]), torch.tensor([1, 1, 0, 1, 0])],
    ]
    monkeypatch.setattr(proposals, "fg_bg_sampler", lambda given: drawn)
    logits, codes = torch.randn(10, 1), torch.randn(10, 4)
    aims = [torch.randn(5, 4), torch.randn(5, 4)]
    entropy, distance = proposals.compute_loss(logits, codes, labels, aims)
    of_image = [
        F.binary_cross_entropy_with_logits(logits[[0, 4, 1], 0], torch.tensor([1.0, 1, 0]), reduction="sum"),
        F.binary_cross_entropy_with_logits(logits[[5, 6, 8], 0], torch.zeros(3), reduction="sum"),
    ]
    l1 = (codes[[0, 4]] - aims[0][[0, 4]]).abs().sum()
    # mmdet counts an image without positives (or negatives) as if it had one: 2 + 1 and 1 + 3.
    torch.testing.assert_close(entropy, (of_image[0] + of_image[1]) / 7)
    torch.testing.assert_close(distance, l1 / 7)
    proposals.loss_images = 1
    entropy, distance = proposals.compute_loss(logits, codes, labels, aims)
    torch.testing.assert_close(entropy, (of_image[0] / 3 + of_image[1] / 4) / 2)
    torch.testing.assert_close(distance, l1 / 3 / 2)


def test_proposals_are_matched_and_kept_as_mmdet_does() -> None:
    proposals: RegionProposals = mask_rcnn().rpn  # type: ignore[assignment]
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 25], [40, 40, 50, 50], [100, 0, 110, 10]])
    # IoU 1 with anchor 0, 0.4 with anchor 1; of the second box 0.25 with anchor 2: less than 0.3, so not taken.
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10], [40, 40, 70, 53.3333]]), "padded": (64, 96)}
    labels, boxes = proposals.assign_targets_to_anchors([anchors], [target])
    assert labels[0].tolist() == [1, -1, 0, -1]  # the last one lies beyond the image's padding
    assert boxes[0][0].tolist() == [0, 0, 10, 10]
    assert proposals._pre_nms_top_n == {"training": 2000, "testing": 1000}
    assert proposals._post_nms_top_n == {"training": 64, "testing": 64}


def test_boxes_are_their_own_proposals_and_match_the_others() -> None:
    heads: BoxAndMaskHeads = mask_rcnn().roi_heads  # type: ignore[assignment]
    boxes, labels = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]]), torch.tensor([1, 3])
    others = torch.tensor([[0.0, 0, 10, 9.5], [30, 30, 40, 40]])
    # Proposal 0 overlaps box 0 by 0.95 and box 1 by 0.84, both most of all that there are: the later box takes it.
    matches, found = heads.assign_targets_to_proposals([torch.cat([others, boxes])], [boxes], [labels])
    assert matches[0].tolist() == [1, 0, 0, 1] and found[0].tolist() == [3, 0, 1, 3]
    matches, found = heads.assign_targets_to_proposals([others], [boxes[:0]], [labels[:0]])
    assert matches[0].tolist() == [0, 0] and found[0].tolist() == [0, 0]


def test_losses_of_the_heads_against_torchvisions() -> None:
    heads: BoxAndMaskHeads = mask_rcnn().roi_heads  # type: ignore[assignment]
    labels = [torch.tensor([1, 0, 3]), torch.tensor([0, 2])]
    logits, codes = torch.randn(5, CLASSES + 1), torch.randn(5, 4 * (CLASSES + 1))
    aims = [torch.randn(3, 4), torch.randn(2, 4)]
    losses = heads._box_losses(logits, codes, labels, aims)
    torch.testing.assert_close(losses["classification"], fastrcnn_loss(logits, codes, labels, aims)[0])
    flat = codes.view(5, -1, 4)
    l1 = [
        (flat[i, label] - aim).abs().sum()
        for i, label, aim in ((0, 1, aims[0][0]), (2, 3, aims[0][2]), (4, 2, aims[1][1]))
    ]
    torch.testing.assert_close(losses["boxes"], sum(l1, torch.zeros(())) / 5)

    # torchvision's targets are not of 0 and 1, so the boxes here begin and end between pixels of the masks' targets.
    of_masks = torch.randn(3, CLASSES + 1, 28, 28)
    given = [{**target, "labels": target["labels"] + 1} for target in targets()]
    regions = [torch.tensor([[8.0, 10, 36, 38], [50, 20, 78, 48], [0, 0, 28, 28]]), torch.zeros(0, 4)]
    of_boxes = [torch.tensor([0, 1, 0]), torch.zeros(0, dtype=torch.long)]
    loss = heads._mask_loss(of_masks, regions, of_boxes, given)
    wanted = mask_targets(given[0]["masks"], regions[0], of_boxes[0], 28)
    own = of_masks[torch.arange(3), torch.tensor([1, 3, 1])]
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(own, wanted))
    near = maskrcnn_loss(
        of_masks, regions, [target["masks"] for target in given], [target["labels"] for target in given], of_boxes
    )
    torch.testing.assert_close(loss, near, rtol=0.05, atol=0)
    heads.loss_images = 1  # the image without regions counts as a loss of 0
    torch.testing.assert_close(heads._mask_loss(of_masks, regions, of_boxes, given), loss / 2)


def test_the_heads_start_as_mmdets() -> None:
    heads: Any = mask_rcnn().roi_heads
    assert heads.box_predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert heads.box_predictor.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.2)
    for layer in (heads.box_head.fc6, heads.box_head.fc7):
        limit = math.sqrt(6 / sum(layer.weight.shape))
        assert 0.95 * limit < layer.weight.abs().max() <= limit
    convolutions = [module for module in heads.mask_head.modules() if isinstance(module, nn.Conv2d)]
    for layer in (*convolutions, heads.mask_predictor.conv5_mask, heads.mask_predictor.mask_fcn_logits):
        assert not layer.bias.any()
    fan_out = convolutions[0].weight.shape[0] * 9
    assert convolutions[0].weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)


@Detectors
@pytest.mark.parametrize("norm", ["none", "group_norm"])
def test_every_parameter_is_trained_and_the_same_seed_gives_the_same_bits(build: Callable[..., Any], norm: str) -> None:
    def gradients() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        net = build(norm)
        torch.manual_seed(5)
        losses = net(images(), targets())
        torch.stack(list(losses.values())).sum().backward()
        return losses, {name: parameter.grad for name, parameter in net.named_parameters()}

    (losses, one), (again, other) = gradients(), gradients()
    assert all(torch.equal(losses[name], again[name]) and losses[name].isfinite() for name in losses)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not [name for name, gradient in one.items() if gradient is None]


@Detectors
def test_a_batch_without_any_box_is_trained_on(build: Callable[..., Any]) -> None:
    net = build()
    losses = net(images()[1:], targets()[1:])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite() and losses["boxes"] == 0
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)


@Detectors
def test_it_learns_classes_boxes_and_masks(build: Callable[..., Any]) -> None:
    """Two boxes of one image, found again in an original of twice the size; the class between them is another one."""
    picture = torch.zeros(3, 70, 96)
    target = targets()[0]
    for channel, mask in zip((0, 2), target["masks"].bool(), strict=True):
        picture[channel, mask] = 2.0
    net = build("group_norm")
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(120):
        torch.manual_seed(step)
        optimizer.zero_grad()
        torch.stack(list(net([picture], [target]).values())).sum().backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        (found,) = net([picture], sizes=[(140, 192)])
    assert (found["boxes"].dtype, found["labels"].dtype) == (torch.float32, torch.int64)
    first = {int(label): i for i, label in reversed(list(enumerate(found["labels"][found["scores"] > 0.3])))}
    assert set(first) == {0, 2}
    for label, box, mask in zip(target["labels"].tolist(), target["boxes"] * 2, target["masks"], strict=True):
        i = first[label]
        assert box_iou(found["boxes"][i][None], box[None]).item() > 0.6
        if "masks" in found:
            truth = F.interpolate(mask[None, None].float(), scale_factor=2)[0, 0].bool()
            assert found["masks"].dtype == torch.bool and found["masks"].shape[1:] == truth.shape
            assert (found["masks"][i] & truth).sum() > 0.6 * (found["masks"][i] | truth).sum()
    assert ("masks" in found) == (build is mask_rcnn)
