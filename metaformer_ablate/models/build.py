"""From a resolved spec to a model."""

from __future__ import annotations

import torch
from torch import nn

from metaformer_ablate.data.catalogue import DATASETS
from metaformer_ablate.models.metaformer import MetaFormer
from metaformer_ablate.spec import RunSpec, stage_sizes


def build_model(spec: RunSpec, *, image_size: int | None = None) -> nn.Module:
    """The model of a spec, on the CPU, its weights drawn from the spec's seed.

    Args:
        image_size: in pixels, instead of the spec's: weights and counts that depend on the resolution follow it.
    """
    if image_size is not None:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"image_size": image_size})})
    facts = DATASETS[spec.data.name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return MetaFormer(
            spec.model,
            in_chans=facts.channels,
            num_classes=facts.num_classes,
            sizes=stage_sizes(spec),
            seed=spec.seed,
        )
