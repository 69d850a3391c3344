"""RetinaNet (arXiv 1708.02002), torchvision's, as mmdet 2.19 has it in the paper's configs."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import sigmoid_focal_loss

from metaformer_ablate.tasks.detection.matching import RATIOS, Anchors, MaxIouMatcher, match, shared_mean
from metaformer_ablate.tasks.detection.pyramid import Detector, Norm, Padding, Pyramid, Target

OCTAVES = 3


class Head(RetinaNetHead):
    """Logits [B, N, classes] and box codes [B, N, 4] of all anchors, in float32 whatever the convolutions are in."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {name: value.float() for name, value in super().forward(x).items()}


class RetinaNet(Detector, TorchvisionRetinaNet):
    """A `Detector` of boxes.

    Targets: boxes [N, 4] as x1, y1, x2, y2 in pixels, labels [N] int64 from 0. Found: boxes, scores, labels.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        classes: int,
        *,
        anchor_scale: float,
        norm: Norm | None,
        loss_images: int | None,
        memory_format: torch.memory_format,
    ):
        super().__init__(
            pyramid,
            classes,
            anchor_generator=Anchors(pyramid.strides, anchor_scale, OCTAVES),
            head=Head(pyramid.out_channels, OCTAVES * len(RATIOS), classes, norm_layer=norm),
            proposal_matcher=MaxIouMatcher(0.5, 0.4, 0.0),
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=100,
            topk_candidates=1000,
        )
        self.transform = Padding(memory_format)
        self.loss_images = loss_images

    def compute_loss(
        self, targets: list[Target], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """Focal loss (gamma 2, alpha 0.25) and L1 of the box codes, over the positive anchors of a group of images.

        An image without one counts as one, as in mmdet's AnchorHead.
        """
        focal, distance, positives = [], [], []
        outputs = (head_outputs[name] for name in ("cls_logits", "bbox_regression"))
        for logits, codes, target, of_image in zip(*outputs, targets, anchors, strict=True):
            matches = match(self.proposal_matcher, target["boxes"], of_image, target["padded"])
            positive = (matches >= 0).nonzero().squeeze(1)
            boxes = matches[positive]
            wanted = torch.zeros_like(logits)
            wanted[positive, target["labels"][boxes]] = 1
            trained = matches != self.proposal_matcher.BETWEEN_THRESHOLDS
            focal.append(sigmoid_focal_loss(logits[trained], wanted[trained], alpha=0.25, gamma=2, reduction="sum"))
            aim = self.box_coder.encode_single(target["boxes"][boxes], of_image[positive])
            distance.append((codes[positive] - aim).abs().sum())
            positives.append(max(len(positive), 1))
        return {
            "classification": shared_mean(focal, positives, self.loss_images),
            "boxes": shared_mean(distance, positives, self.loss_images),
        }
