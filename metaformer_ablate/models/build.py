"""From a resolved spec to a model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.components import Component
from metaformer_ablate.models.metaformer import MetaFormer, MetaFormerBlock
from metaformer_ablate.models.user_components import (
    cannot_be_built,
    check_own_parts,
    own_names,
    parts_of,
    read_own_parts,
)
from metaformer_ablate.spec.checks import stage_sizes
from metaformer_ablate.spec.run_spec import RunSpec


def build_model(spec: RunSpec, *, image_size: int | None = None, kernels: str = "torch") -> nn.Module:
    """The model of a spec, on the CPU, its weights drawn from the spec's seed or read from `model.init_from`.

    Args:
        image_size: in pixels, instead of the spec's: weights and counts that depend on the resolution follow it.
        kernels: torch, or triton: blocks that kernels.py has fused, which compute the same from the same weights, and
            on a GPU only.

    Raises RequestError where a comparator is unknown, a checkpoint does not fit, a part cannot work at its place, one
    of the user's own cannot be built or Triton is not there.
    """
    if image_size is not None:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"image_size": image_size})})
    channels = DATASETS[spec.data.name].channels
    own = _own_parts(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        try:
            net = _build(spec, channels, spec.data.classes, _fused(kernels))
        except RequestError:
            raise
        except (Exception, SystemExit) as error:  # SystemExit out of a class of the user's own
            if own:
                raise cannot_be_built(error, own) from None
            if not isinstance(error, ValueError):
                raise
            # A part that cannot work at its place says so.
            raise RequestError(f"the model cannot be built: {error}") from None
        if own:
            check_own_parts(net, own, (channels, spec.data.image_size, spec.data.image_size))
    if spec.model.init_from is not None and image_size is None:
        from metaformer_ablate.models.weights import load_weights

        load_weights(net, spec.model.init_from)
    return net


def _own_parts(spec: RunSpec) -> dict[str, Component]:
    """The parts of the user's own that a spec names. Raises RequestError for one whose class is another by now."""
    own = own_names(spec.model)
    if own:
        read_own_parts()  # this may be a worker, which has resolved nothing
    known = parts_of(spec.model)
    if gone := sorted(own - known.keys()):
        raise RequestError(f"{', '.join(gone)}: parts.yaml names no such part, or its class is another by now")
    return known


def _fused(kernels: str) -> Mapping[tuple[str | None, str], type[MetaFormerBlock]]:
    if kernels == "torch":
        return {}
    try:
        from metaformer_ablate.models.kernels import FUSED
    except ImportError as error:  # torch brings Triton along on Linux
        raise RequestError(f"train.kernels is 'triton', which cannot be loaded here: {error}; allowed: torch") from None
    return FUSED


def _build(
    spec: RunSpec, in_chans: int, num_classes: int, fused: Mapping[tuple[str | None, str], type[MetaFormerBlock]]
) -> nn.Module:
    model = spec.model
    if (name := model.timm or model.comparator) is not None:
        from metaformer_ablate.models.comparators.build import build_comparator, build_timm

        build = build_timm if model.timm else build_comparator
        shape = {"in_chans": in_chans, "num_classes": num_classes, "image_size": spec.data.image_size}
        return build(name, **shape, drop_path=model.drop_path or 0.0)
    sizes = stage_sizes(spec)
    return MetaFormer(model, in_chans=in_chans, num_classes=num_classes, sizes=sizes, seed=spec.seed, fused=fused)
