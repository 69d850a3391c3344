"""The proposals of Mask R-CNN (Faster R-CNN, arXiv 1506.01497), and which of them are trained on."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.tasks.detection.matching import RATIOS, Anchors, MaxIouMatcher, match, shared_mean
from metaformer_ablate.tasks.detection.pyramid import Pyramid, Target

ANCHORS, POSITIVE = 256, 0.5  # that are trained on per image, and how many of them with a box at most


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
            batch_size_per_image=ANCHORS,
            positive_fraction=POSITIVE,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": kept, "testing": kept},
            nms_thresh=0.7,
        )
        self.proposal_matcher = MaxIouMatcher(0.7, 0.3, 0.3)
        self.fg_bg_sampler = ImageSampler(ANCHORS, POSITIVE)
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
