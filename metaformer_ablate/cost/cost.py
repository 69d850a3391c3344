"""The cost of a spec, kept in the cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

from metaformer_ablate.cost.counting import Cost, _CostShape, count_model
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.cache import cache_dir, write_cache


def count(spec: RunSpec, image_size: int | None = None) -> Cost:
    """Counts the model of a spec at its own resolution or at `image_size` pixels. Remembered by what it depends on."""
    if (known := cached_cost(spec, image_size)) is not None:
        return known
    from metaformer_ablate.models.build import build_model

    channels, classes, size = spec.data.net_shape
    model = spec.model
    if image_size is not None:  # weights to start from are of the spec's own resolution
        model, size = model.model_copy(update={"init_from": None}), image_size
    net = build_model(model, channels, classes, size, seed=spec.seed)
    cost = count_model(net, (channels, size, size), all_norms=model.timm is not None)
    write_cache(_cache_path(spec, image_size), json.dumps(asdict(cost)))
    return cost


def cached_cost(spec: RunSpec, image_size: int | None = None) -> Cost | None:
    """The counts of a spec if they were made before on this machine. Loads no torch."""
    try:
        return Cost(**_CostShape.model_validate(read_json(_cache_path(spec, image_size))).model_dump())
    except (OSError, ValueError):
        return None


def _cache_path(spec: RunSpec, image_size: int | None) -> Path:
    key = digest([spec.cost_key(), image_size, COUNTING, _fvcore_version()])
    return cache_dir() / "costs" / f"{key[:24]}.json"


def macs_at_224(spec: RunSpec) -> int | None:
    """MACs of the same model for an image of 224 x 224; None where it does not fit that size or fits it at no sane one.

    What depends on the resolution is sized for 224: with the stem of a small recipe a random matrix or an MLP over all
    tokens would have over ten thousand tokens a side, which is no model that anybody means.
    """
    if spec.model.not_applicable(224) is not None:
        return None
    for (height, width), mixer in zip(spec.model.stage_sizes(224), spec.model.stages()[2], strict=True):
        if COMPONENTS.mixers[mixer].fixed_resolution and height * width > 3136:  # the first stage of the paper's models
            return None
    return count(spec, 224).macs


@cache
def _fvcore_version() -> str:
    return version("fvcore")


# Raised whenever the same model would be counted differently; counts in the cache are of one version.
COUNTING = 3
