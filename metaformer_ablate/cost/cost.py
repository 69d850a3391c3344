"""The cost of a spec, kept in the cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from metaformer_ablate.cost.counting import Cost, count_parts
from metaformer_ablate.errors import ModelRefused
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.cache import cache_dir, write_cache
from metaformer_ablate.tasks.base import CostPart
from metaformer_ablate.tasks.registry import DEFAULT, task_of

if TYPE_CHECKING:
    import torch


def count(spec: RunSpec, image_size: int | None = None) -> Cost:
    """Counts the model of a spec at its own resolution or at `image_size` pixels. Remembered by what it depends on."""
    if (known := cached_cost(spec, image_size)) is not None:
        return known
    sized = spec
    if image_size is not None:
        sized = sized.model_copy(update={"data": spec.data.model_copy(update={"image_size": image_size})})
    if image_size is not None or spec.model.init_recipe is not None:
        # Weights to start from are of the spec's own resolution; those of another run may not be there yet.
        sized = sized.model_copy(update={"model": spec.model.model_copy(update={"init_from": None})})
    cost = _counted(sized, tried=image_size is None)
    write_cache(_cache_path(spec, image_size), json.dumps(asdict(cost)))
    return cost


def _counted(spec: RunSpec, tried: bool) -> Cost:
    """On the CPU; a model with components of the user's own that cannot run there, on a GPU. `tried`: these are tried.

    Raises RequestError where the model cannot be built, ModelRefused where it holds components of the user's own.
    """
    import torch

    try:
        return _counted_on(spec, torch.device("cpu"), tried)
    except ModelRefused:
        if not torch.cuda.is_available():
            raise
    return _counted_on(spec, torch.device("cuda"), tried)


def _counted_on(spec: RunSpec, device: torch.device, tried: bool) -> Cost:
    part = task_of(spec).part("net")
    net = part.build_net(spec, device=device if tried else None)
    net.eval()  # the shapes of its maps are found by one image, of which no batch norm can have statistics
    parts = part.cost_parts(net, spec)
    if device.type != "cpu":
        parts = [CostPart(p.name, p.module.to(device), tuple(x.to(device) for x in p.inputs)) for p in parts]
    own = COMPONENTS.find(spec.model.own_names())
    not_ours = spec.model.timm is not None or spec.model.own_class is not None
    return count_parts(net, parts, all_norms=not_ours, own=own)


def cached_cost(spec: RunSpec, image_size: int | None = None) -> Cost | None:
    """The counts of a spec if they were made before on this machine. Loads no torch."""
    try:
        return Cost(**read_json(_cache_path(spec, image_size)))
    except (OSError, ValueError, TypeError):  # TypeError: what it holds is no mapping
        return None


def _cache_path(spec: RunSpec, image_size: int | None) -> Path:
    own = COMPONENTS.find(spec.model.own_names())
    functions = sorted([name, part.macs] for name, part in own.items() if part.macs)
    timm = [version("timm")] if spec.model.timm else []
    key = digest([spec.cost_key(), image_size, COUNTING, _fvcore_version(), *functions, *timm])
    return cache_dir() / "costs" / f"{key[:24]}.json"


def macs_at_224(spec: RunSpec) -> int | None:
    """MACs of the same classifier for an image of 224 x 224; None where it does not fit that size, or at no sane one.

    What depends on the resolution is sized for 224: with the stem of a small recipe a random matrix or an MLP over all
    tokens would have over ten thousand tokens per side, which is no model that anybody means.
    """
    if task_of(spec).name != DEFAULT or spec.model.not_applicable(224) is not None:
        return None
    for (height, width), mixer in zip(spec.model.stage_sizes(224), spec.model.stages()[2], strict=True):
        if COMPONENTS.mixers[mixer].fixed_resolution and height * width > 3136:  # the first stage of the paper's models
            return None
    try:
        return count(spec, 224).macs
    except Exception:  # whatever its code raises
        if spec.model.own_class is None and not spec.model.own_names():
            raise
        return None  # what sizes a class or a component of the user's own takes, only trying it tells


@cache
def _fvcore_version() -> str:
    return version("fvcore")


# Raised whenever the same model would be counted differently; counts in the cache are of one version.
COUNTING = 3
