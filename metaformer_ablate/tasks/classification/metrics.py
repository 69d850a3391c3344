"""Metrics of logits, and the predictions that a record keeps."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_accuracy


def measure(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """loss (cross-entropy without smoothing), top1 and top5 in percent, of logits [N, classes] and labels [N]."""
    classes = logits.shape[1]
    result = {"loss": F.cross_entropy(logits, labels)}
    for k in (1, 5):
        result[f"top{k}"] = 100 * multiclass_accuracy(
            logits, labels, num_classes=classes, top_k=min(k, classes), average="micro", validate_args=False
        )
    return result


def predictions_of(logits: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """What a record keeps of logits [N, classes] and labels [N]: label, predicted and confidence (0 to 1), each [N]."""
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    small = np.uint8 if logits.shape[1] <= 256 else np.uint16
    return {
        "label": labels.cpu().numpy().astype(small),
        "predicted": predicted.cpu().numpy().astype(small),
        "confidence": confidence.float().cpu().numpy(),
    }


def at_chance(top1: float, images: int, classes: int) -> bool:
    """Whether top-1, in percent, is within three standard deviations of guessing one of the classes."""
    p = 1 / classes
    return bool(top1 / 100 <= p + 3 * (p * (1 - p) / images) ** 0.5)
