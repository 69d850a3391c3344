"""From settings to a net."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from metaformer_ablate.errors import ModelRefused, RequestError
from metaformer_ablate.models.components import Component
from metaformer_ablate.models.freezing import apply_freezing
from metaformer_ablate.models.metaformer import MetaFormer, MetaFormerBlock
from metaformer_ablate.models.own_checks import Conditions, check_own_parts
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.models.user_components import cannot_be_built


def build_model(
    model: ModelSpec,
    channels: int,
    num_classes: int,
    image_size: int,
    *,
    seed: int = 0,
    kernels: str = "torch",
    under: Conditions | None = None,
) -> nn.Module:
    """The net of a model's settings, on the CPU, its weights drawn from a seed or read from `model.init_from`.

    Args:
        channels: of an image.
        num_classes: length of the logits.
        image_size: in pixels per side; weights that depend on the resolution follow it.
        kernels: torch, or triton: blocks that kernels.py has fused, which compute the same from the same weights, and
            on a GPU only.
        under: how components of the user's own are tried; None: they are not.

    Raises RequestError where a comparator is unknown, a checkpoint does not fit, a component cannot work at its place,
    `model.freeze` names no part of the net, one of the user's own cannot be built or Triton is not there.
    """
    shape = (channels, image_size, image_size)
    fused = fused_blocks(kernels)

    def build() -> nn.Module:
        return _build(model, channels, num_classes, image_size, seed, fused)

    net = build_seeded(model, shape, seed, build, under)
    if model.own_class is not None and under is not None:
        from metaformer_ablate.models.own_model import check_own_class

        check_own_class(lambda: build_seeded(model, shape, seed, build), model, shape, num_classes, under)
    if model.init_from is not None:
        from metaformer_ablate.models.starting import start_from

        start_from(net, model, num_classes)
    apply_freezing(net, model)
    return net


def build_seeded(
    model: ModelSpec,
    image: tuple[int, int, int],
    seed: int,
    build: Callable[[], nn.Module],
    under: Conditions | None = None,
) -> nn.Module:
    """What `build` gives, its weights drawn from a seed.

    Components of the user's own are tried on an image [C, H, W] as `under` says, in another net.
    Raises RequestError where it cannot be built; ModelRefused where it holds components of the user's own.
    """
    own = _own_parts(model)

    def seeded() -> nn.Module:
        torch.manual_seed(seed)
        random.seed(seed)  # components and classes of the user's own draw from these, too
        np.random.seed(seed % 2**32)
        return build()

    with _generators_kept():
        try:
            net = seeded()
        except RequestError as error:
            raise ModelRefused(str(error)) if own or model.own_class else error from None
        except (Exception, SystemExit) as error:  # SystemExit out of a class of the user's own
            if own:
                raise cannot_be_built(error, own) from None
            if not isinstance(error, ValueError):
                raise
            # A component that cannot work at its place says so.
            raise RequestError(f"the model cannot be built: {error}") from None
        if own and under is not None:
            check_own_parts(seeded, own, image, under)
    return net


@contextmanager
def _generators_kept() -> Iterator[None]:
    """What is drawn within leaves the generators of torch's CPU, Python and NumPy as they were."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def _own_parts(model: ModelSpec) -> dict[str, Component]:
    """The user's own components that a model names. Raises ModelRefused for one whose class is another by now."""
    own = model.own_names()
    if own:
        COMPONENTS.read_own()  # this may be a worker, which has resolved nothing
    known = COMPONENTS.find(own)
    if gone := sorted(own - known.keys()):
        raise ModelRefused(f"{', '.join(gone)}: parts.yaml names no such part, or its class is another by now")
    return known


def fused_blocks(kernels: str) -> Mapping[tuple[str | None, str], type[MetaFormerBlock]]:
    if kernels == "torch":
        return {}
    try:
        from metaformer_ablate.models.kernels import FUSED
    except ImportError as error:  # torch brings Triton along on Linux
        raise RequestError(f"train.kernels is 'triton', which cannot be loaded here: {error}; allowed: torch") from None
    return FUSED


def _build(
    model: ModelSpec,
    channels: int,
    num_classes: int,
    image_size: int,
    seed: int,
    fused: Mapping[tuple[str | None, str], type[MetaFormerBlock]],
) -> nn.Module:
    if model.own_class is not None:
        from metaformer_ablate.models.own_model import build_own

        return build_own(model, channels, num_classes)
    if (name := model.timm or model.comparator) is not None:
        from metaformer_ablate.models.comparators.build import build_comparator, build_timm

        shape: dict[str, Any] = {"in_chans": channels, "num_classes": num_classes, "image_size": image_size}
        shape["drop_path"] = model.drop_path or 0.0
        return build_timm(name, model.args or {}, **shape) if model.timm else build_comparator(name, **shape)
    sizes = model.stage_sizes(image_size)
    return MetaFormer(model, in_chans=channels, num_classes=num_classes, sizes=sizes, seed=seed, fused=fused)
