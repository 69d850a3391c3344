"""Mask R-CNN (arXiv 1703.06870), torchvision's parts, as mmdet 2.19 has it in the paper's configs."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.tasks.detection.matching import RATIOS, Anchors, MaxIouMatcher, match, shared_mean
from metaformer_ablate.tasks.detection.pyramid import Norm, Padding, Pyramid, Target, to_original


@dataclass(frozen=True)
class Sizes:
    """What a small recipe has smaller than the paper."""

    proposals: int = 1000  # kept per image, in training too
    box_samples: int = 512  # proposals per image that are trained on
    fc_width: int = 1024  # of the two hidden layers of the box head
    mask_width: int = 256  # of the convolutions of the mask head


class ProposalHead(RPNHead):
    """Objectness and box codes by level, in float32 whatever the convolutions are in."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        found_on_levels = super().forward(x)
        logits, codes = ([found.float() for found in of_levels] for of_levels in found_on_levels)
        return logits, codes


class RegionProposals(RegionProposalNetwork):
    """Proposals and their losses: binary cross-entropy, and L1 where torchvision has a smooth L1 of beta 1/9.

    A box has its best anchor from IoU 0.3 on. 2,000 proposals of each level go to the NMS in training, 1,000 else.
    """

    def __init__(self, pyramid: Pyramid, anchor_scale: float, kept: int, loss_images: int | None):
        super().__init__(
            Anchors(pyramid.strides, anchor_scale, 1),
            ProposalHead(pyramid.out_channels, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": kept, "testing": kept},
            nms_thresh=0.7,
        )
        self.proposal_matcher = MaxIouMatcher(0.7, 0.3, 0.3)
        self.loss_images = loss_images

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels [N] (1, 0, or -1 where an anchor is not trained on) and boxes [N, 4], for each image."""
        labels, boxes = [], []
        for of_image, target in zip(anchors, targets, strict=True):
            matches = match(self.proposal_matcher, target["boxes"], of_image, target["padded"])
            labels.append(
                torch.where(matches == self.proposal_matcher.BETWEEN_THRESHOLDS, -1.0, (matches >= 0).float())
            )
            # Where there is no box the anchor itself: coded and not used.
            boxes.append(target["boxes"][matches.clamp(min=0)] if len(target["boxes"]) else of_image)
        return labels, boxes

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Both over the anchors that were sampled from a group of images."""
        of_images = (value.unflatten(0, (len(labels), -1)) for value in (objectness, pred_bbox_deltas))
        entropy, distance, counts = [], [], []
        for logits, codes, wanted, aims, *drawn in zip(
            *of_images, labels, regression_targets, *self.fg_bg_sampler(labels), strict=True
        ):
            positive, negative = (which.nonzero().squeeze(1) for which in drawn)
            chosen = torch.cat([positive, negative])
            entropy.append(
                F.binary_cross_entropy_with_logits(logits.flatten()[chosen], wanted[chosen], reduction="sum")
            )
            distance.append((codes[positive] - aims[positive]).abs().sum())
            counts.append(max(len(positive), 1) + max(len(negative), 1))
        return shared_mean(entropy, counts, self.loss_images), shared_mean(distance, counts, self.loss_images)


class ImageSampler(BalancedPositiveNegativeSampler):
    """torchvision's, but what it draws for an image follows from the step and that image alone: not from the images
    before it, which lie elsewhere where several devices share a batch.

    `images` has a number for each image of the step; `draw_for` sets it.
    """

    images: list[int]

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        positive: list[Tensor] = []
        negative: list[Tensor] = []
        step = torch.initial_seed()  # which the module sets before each step
        for image, labels in zip(self.images, matched_idxs, strict=True):
            devices = [labels.device] if labels.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(derive_seed(step, "regions", image))
                drawn = super().__call__([labels])
            positive += drawn[0]
            negative += drawn[1]
        return positive, negative

    def draw_for(self, targets: list[Target]) -> None:
        """Images are told apart by their boxes: two of the same may draw the same."""
        self.images = [zlib.crc32(target["boxes"].cpu().numpy().tobytes()) for target in targets]


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
            found = roi_align(x[name], regions[there].to(x[name]), self.output_size, scale, aligned=True)
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
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
            mask_roi_pool=RegionAlign(pyramid.body_strides, 14),
            mask_head=MaskRCNNHeads(channels, [sizes.mask_width] * 4, dilation=1, norm_layer=norm),
            mask_predictor=_mask_predictor(sizes.mask_width, with_background),
        )
        self.proposal_matcher = MaxIouMatcher(0.5, 0.5, 0.5)
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


class MaskRcnn(GeneralizedRCNN):
    """Images and targets to losses in training; else images to what is found in them, at their original sizes.

    Targets: boxes [N, 4] as x1, y1, x2, y2 in pixels, labels [N] int64 from 0, masks [N, H, W] uint8. Found: boxes,
    scores, labels from 0, masks [n, H, W] bool. Inside, label 0 is the background, as torchvision has it.
    """

    backbone: Pyramid

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
        for part in (self.rpn, self.roi_heads):
            drawn = part.fg_bg_sampler
            part.fg_bg_sampler = ImageSampler(drawn.batch_size_per_image, drawn.positive_fraction)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the backbone's blocks are computed once more in the backward pass, to save memory."""
        self.backbone.body.set_grad_checkpointing(enable)  # type: ignore[operator]

    def forward(  # type: ignore[override]
        self,
        images: list[Tensor],
        targets: list[Target] | None = None,
        sizes: list[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor] | list[Target]:
        """`sizes`: (height, width) of the originals; None: the images are the originals."""
        if targets is not None:
            targets = [target | {"labels": target["labels"] + 1} for target in targets]
            for sampler in (self.rpn.fg_bg_sampler, self.roi_heads.fg_bg_sampler):
                assert isinstance(sampler, ImageSampler)
                sampler.draw_for(targets)
        found = super().forward(images, targets)
        if self.training:
            return found
        found = [each | {"labels": each["labels"] - 1} for each in found]  # type: ignore[union-attr]
        shapes = [(image.shape[-2], image.shape[-1]) for image in images]
        return [to_original(*each) for each in zip(found, shapes, sizes or shapes, strict=True)]
