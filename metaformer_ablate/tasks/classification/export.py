"""What other programs have to know of an exported classifier."""

from __future__ import annotations

from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.tasks.classification.trained import EvaluatedImages

GRAPH_OUTPUT = "logits"  # what an exported net gives


def normalisation(
    data: DataSpec, images: EvaluatedImages | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation per channel (0 to 1) that an exported net expects; None where they are not known."""
    if images is not None:
        return images.mean, images.std
    if data.in_memory:
        return None, None
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
