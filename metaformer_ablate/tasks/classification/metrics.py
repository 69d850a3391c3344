"""Metrics of logits."""

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
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    small = np.uint8 if logits.shape[1] <= 256 else np.uint16
    return {
        "label": labels.cpu().numpy().astype(small),
        "predicted": predicted.cpu().numpy().astype(small),
        "confidence": confidence.float().cpu().numpy(),
    }
