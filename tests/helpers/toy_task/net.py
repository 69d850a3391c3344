"""A net of one output."""

from __future__ import annotations

from metaformer_ablate.tasks.classification.net import build_net, cost_parts, image_shape

__all__ = ["build_net", "cost_parts", "image_shape"]
