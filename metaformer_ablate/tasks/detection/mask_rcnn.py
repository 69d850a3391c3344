"""Mask R-CNN (arXiv 1703.06870), torchvision's parts, as mmdet 2.19 has it in the paper's configs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from metaformer_ablate.tasks.detection.matching import MaxIouMatcher, shared_mean
from metaformer_ablate.tasks.detection.proposals import ImageSampler, RegionProposals
from metaformer_ablate.tasks.detection.pyramid import Detector, Norm, Padding, Pyramid, Target

POSITIVE = 0.25  # of the proposals that are trained on, at most


@dataclass(frozen=True)
class Sizes:
    """What a small recipe has smaller than the paper."""

    proposals: int = 1000  # kept per image, in training too
    box_samples: int = 512  # proposals per image that are trained on
    fc_width: int = 1024  # of the two hidden layers of the box head
    mask_width: int = 256  # of the convolutions of the mask head


class RegionAlign(MultiScaleRoIAlign):
    """Maps by name and boxes to [boxes, channels, side, side]: RoIAlign with `aligned=True`, as many samples as needed.

    A box of 224 pixels is read from the map of stride 16, one of half the side from the map before. torchvision has
    `aligned=False`, two samples, and infers the strides from the first images it sees.
    """

    def __init__(self, strides: tuple[int, ...], side: int):
        super().__init__([str(i) for i in range(len(strides))], side, sampling_ratio=0)
        self.scales = [1 / stride for stride in strides]
        self.map_levels = LevelMapper(int(math.log2(strides[0])), int(math.log2(strides[-1])))

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        numbers = [of_image.new_full((len(of_image), 1), i) for i, of_image in enumerate(boxes)]
        regions = torch.cat([torch.cat(numbers), torch.cat(boxes)], 1)  # [n, 5]
        levels = self.map_levels(boxes)
        first = x[self.featmap_names[0]]
        pooled = first.new_zeros((len(regions), first.shape[1], *self.output_size))
        for level, (name, scale) in enumerate(zip(self.featmap_names, self.scales, strict=True)):
            there = (levels == level).nonzero().squeeze(1)
            # In bf16 a coordinate above 512 would be a multiple of 4: both are float32, which autocast makes them, too.
            found = roi_align(x[name].float(), regions[there].float(), self.output_size, scale, aligned=True)
            pooled = pooled.index_copy(0, there, found.to(pooled))
        return pooled


class BoxAndMaskHeads(RoIHeads):
    """The heads of a proposal: class (cross-entropy), box (L1) and mask (binary cross-entropy at 28 x 28).

    0.5 is the IoU from which a proposal is its box; a quarter of those that are trained on at most; 0.05 and 0.5 are
    the score and the NMS of what is found, 100 per image.
    """

    def __init__(self, pyramid: Pyramid, classes: int, sizes: Sizes, norm: Norm | None, loss_images: int | None):
        channels, with_background = pyramid.out_channels, classes + 1
        box_head, box_predictor = _box_head(channels, with_background, sizes.fc_width)
        super().__init__(
            RegionAlign(pyramid.body_strides, 7),
            box_head,
            box_predictor,
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=sizes.box_samples,
            positive_fraction=POSITIVE,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
            mask_roi_pool=RegionAlign(pyramid.body_strides, 14),
            mask_head=MaskRCNNHeads(channels, [sizes.mask_width] * 4, dilation=1, norm_layer=norm),
            mask_predictor=_mask_predictor(sizes.mask_width, with_background),
        )
        self.proposal_matcher = MaxIouMatcher(0.5, 0.5, 0.5)
        self.fg_bg_sampler = ImageSampler(sizes.box_samples, POSITIVE)
        self.loss_images = loss_images

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The box [n] and the label [n] (0: background) of each proposal; the last proposals are the boxes themselves.

        As mmdet has it, the boxes are matched to the proposals without them, and each is its own proposal.
        """
        matches, labels = [], []
        for of_image, boxes, of_boxes in zip(proposals, gt_boxes, gt_labels, strict=True):
            own = torch.arange(len(boxes), device=boxes.device)
            others = of_image[: len(of_image) - len(boxes)]
            found = own.new_full((len(others),), self.proposal_matcher.BELOW_LOW_THRESHOLD)
            if len(boxes) and len(others):
                found = self.proposal_matcher(self.box_similarity(boxes, others))
            found = torch.cat([found, own])
            matches.append(found.clamp(min=0))
            label = of_boxes[found.clamp(min=0)] if len(boxes) else torch.zeros_like(found)
            labels.append(torch.where(found >= 0, label, 0))
        return matches, labels

    def forward(  # type: ignore[override]
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target] | None = None,
    ) -> tuple[list[Target], dict[str, Tensor]]:
        """What is found, its masks as probabilities [n, 1, 28, 28] within the boxes; in training the losses instead."""
        if self.training:
            assert targets is not None
            chosen, matches, labels, aims = self.select_training_samples(proposals, targets)
            logits, codes = self._boxes(features, chosen, image_shapes)
            losses = self._box_losses(logits, codes, labels, aims)
            positive = [(label > 0).nonzero().squeeze(1) for label in labels]
            regions = [boxes[which] for boxes, which in zip(chosen, positive, strict=True)]
            of_boxes = [match[which] for match, which in zip(matches, positive, strict=True)]
            of_masks = self._masks(features, regions, image_shapes)
            return [], losses | {"masks": self._mask_loss(of_masks, regions, of_boxes, targets)}
        logits, codes = self._boxes(features, proposals, image_shapes)
        found = self.postprocess_detections(logits, codes, proposals, image_shapes)
        results = [dict(zip(("boxes", "scores", "labels"), values, strict=True)) for values in zip(*found, strict=True)]
        boxes, _, labels = found
        masks = maskrcnn_inference(self._masks(features, boxes, image_shapes), labels)
        return [result | {"masks": mask} for result, mask in zip(results, masks, strict=True)], {}

    def _boxes(
        self, features: dict[str, Tensor], regions: list[Tensor], shapes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        logits, codes = self.box_predictor(self.box_head(self.box_roi_pool(features, regions, shapes)))
        return logits.float(), codes.float()

    def _masks(self, features: dict[str, Tensor], regions: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        """Logits [n, 1 + classes, 28, 28]."""
        return self.mask_predictor(self.mask_head(self.mask_roi_pool(features, regions, shapes))).float()

    def _box_losses(self, logits: Tensor, codes: Tensor, labels: list[Tensor], aims: list[Tensor]) -> dict[str, Tensor]:
        entropy, distance, counts = [], [], [len(label) for label in labels]
        codes = codes.unflatten(1, (-1, 4))  # [n, 1 + classes, 4]
        for of_logits, of_codes, label, aim in zip(
            logits.split(counts), codes.split(counts), labels, aims, strict=True
        ):
            entropy.append(F.cross_entropy(of_logits, label, reduction="sum"))
            positive = (label > 0).nonzero().squeeze(1)
            distance.append((of_codes[positive, label[positive]] - aim[positive]).abs().sum())
        return {
            "classification": shared_mean(entropy, counts, self.loss_images),
            "boxes": shared_mean(distance, counts, self.loss_images),
        }

    def _mask_loss(
        self, logits: Tensor, regions: list[Tensor], of_boxes: list[Tensor], targets: list[Target]
    ) -> Tensor:
        """Over the positions of the masks of all positive proposals of a group of images."""
        entropy, counts = [], [len(of_image) for of_image in regions]
        for of_logits, boxes, indices, target in zip(logits.split(counts), regions, of_boxes, targets, strict=True):
            label = target["labels"][indices]
            wanted = mask_targets(target["masks"], boxes, indices, logits.shape[-1])
            own = of_logits[torch.arange(len(label), device=label.device), label]
            entropy.append(F.binary_cross_entropy_with_logits(own, wanted, reduction="sum"))
        return shared_mean(entropy, [count * logits.shape[-1] ** 2 for count in counts], self.loss_images)


def mask_targets(masks: Tensor, boxes: Tensor, indices: Tensor, side: int) -> Tensor:
    """Of masks [N, H, W] what lies in boxes [n, 4], box i from mask indices[i]: [n, side, side] of 0 and 1.

    RoIAlign with `aligned=True`, 0.5 and above, as mmdet's BitmapMasks.crop_and_resize; torchvision does neither.
    """
    regions = torch.cat([indices[:, None].to(boxes), boxes], 1)
    return (roi_align(masks[:, None].to(boxes), regions, side, aligned=True)[:, 0] >= 0.5).float()


def _box_head(channels: int, classes: int, width: int) -> tuple[nn.Module, nn.Module]:
    """Two linear layers of Xavier's uniform start, then classes (normal of 0.01) and boxes (0.001): mmdet's start."""
    head, predictor = TwoMLPHead(channels * 7 * 7, width), FastRCNNPredictor(width, classes)
    for layer in (head.fc6, head.fc7):
        nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
    for layer in (head.fc6, head.fc7, predictor.cls_score, predictor.bbox_pred):
        nn.init.zeros_(layer.bias)
    return head, predictor


def _mask_predictor(width: int, classes: int) -> nn.Module:
    predictor = MaskRCNNPredictor(width, width, classes)
    for name, parameter in predictor.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return predictor


class MaskRcnn(Detector, GeneralizedRCNN):
    """A `Detector` of boxes and masks.

    Targets: boxes [N, 4] as x1, y1, x2, y2 in pixels, labels [N] int64 from 0, masks [N, H, W] uint8. Found: boxes,
    scores, labels from 0, masks [n, H, W] bool. Inside, label 0 is the background, as torchvision has it.
    """

    first_label = 1

    def __init__(
        self,
        pyramid: Pyramid,
        classes: int,
        *,
        anchor_scale: float,
        sizes: Sizes,
        norm: Norm | None,
        loss_images: int | None,
        memory_format: torch.memory_format,
    ):
        super().__init__(
            pyramid,
            RegionProposals(pyramid, anchor_scale, sizes.proposals, loss_images),
            BoxAndMaskHeads(pyramid, classes, sizes, norm, loss_images),
            Padding(memory_format),
        )

    def begin(self, targets: list[Target]) -> None:
        for part in (self.rpn, self.roi_heads):
            part.fg_bg_sampler.draw_for(targets)
