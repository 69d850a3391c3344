"""From a resolved spec to a model."""

from __future__ import annotations

import torch
from torch import nn

from metaformer_ablate.data.catalogue import DATASETS
from metaformer_ablate.models.metaformer import MetaFormer
from metaformer_ablate.spec import RunSpec, stage_sizes
from metaformer_ablate.yaml_reader import RequestError


def build_model(spec: RunSpec, *, image_size: int | None = None) -> nn.Module:
    """The model of a spec, on the CPU, its weights drawn from the spec's seed or read from `model.init_from`.

    Args:
        image_size: in pixels, instead of the spec's: weights and counts that depend on the resolution follow it.

    Raises RequestError where a comparator is unknown, a checkpoint does not fit or a part cannot work at its place.
    """
    if image_size is not None:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"image_size": image_size})})
    facts = DATASETS[spec.data.name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        try:
            net = _build(spec, facts.channels, facts.num_classes)
        except RequestError:
            raise
        except ValueError as error:  # a part that cannot work at its place says so
            raise RequestError(f"the model cannot be built: {error}") from None
    if spec.model.init_from is not None and image_size is None:
        from metaformer_ablate.models.weights import load_weights

        load_weights(net, spec.model.init_from)
    return net


def _build(spec: RunSpec, in_chans: int, num_classes: int) -> nn.Module:
    model = spec.model
    if (name := model.timm or model.comparator) is not None:
        from metaformer_ablate.models.comparators import build_comparator, build_timm

        build = build_timm if model.timm else build_comparator
        shape = {"in_chans": in_chans, "num_classes": num_classes, "image_size": spec.data.image_size}
        return build(name, **shape, drop_path=model.drop_path or 0.0)
    return MetaFormer(model, in_chans=in_chans, num_classes=num_classes, sizes=stage_sizes(spec), seed=spec.seed)
