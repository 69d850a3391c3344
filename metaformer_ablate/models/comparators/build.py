"""Comparators of the paper's table 2: timm's models by name, and those that timm has no name for."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from torch import nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.comparators.pvt import PVT, PVT_SIZES
from metaformer_ablate.models.comparators.swin_mixer import SWIN_MIXER_SIZES, SwinMixer


def build_comparator(name: str, *, in_chans: int, num_classes: int, image_size: int, drop_path: float) -> nn.Module:
    """One of zoo.COMPARATORS. Raises ValueError where the image size does not fit."""
    shape: dict[str, Any] = {
        "in_chans": in_chans,
        "num_classes": num_classes,
        "image_size": image_size,
        "drop_path": drop_path,
    }
    if name in PVT_SIZES:
        return PVT(**PVT_SIZES[name], **shape)
    if name in SWIN_MIXER_SIZES:
        return SwinMixer(**SWIN_MIXER_SIZES[name], **shape)
    return _resmlp_b24(in_chans, num_classes, image_size, drop_path)


def _resmlp_b24(in_chans: int, num_classes: int, image_size: int, drop_path: float) -> nn.Module:
    from functools import partial

    from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock

    # resmlp_big_24 of timm with the patch size of ResMLP's paper and of table 2.
    return MlpMixer(
        num_classes=num_classes,
        img_size=image_size,
        in_chans=in_chans,
        patch_size=16,
        num_blocks=24,
        embed_dim=768,
        mlp_ratio=4,
        block_layer=partial(ResBlock, init_values=1e-6),  # type: ignore[arg-type]
        norm_layer=Affine,
        drop_path_rate=drop_path,
    )


def check_timm_name(name: str) -> None:
    """Raises RequestError for a name that timm does not have."""
    import timm

    from metaformer_ablate.errors import unknown

    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:12]
        raise RequestError(unknown("timm model", name, close or timm.list_models()[:12]))


def no_stochastic_depth(name: str, drop_path: float) -> RequestError:
    """What is said where a model of timm does not take the rate."""
    return RequestError(f"model.drop_path is {drop_path:g}, but timm's {name} has no stochastic depth; allowed: 0")


def build_timm(
    name: str, args: Mapping[str, Any], *, in_chans: int, num_classes: int, image_size: int, drop_path: float
) -> nn.Module:
    """A model of timm by its name, with random weights and arguments of its own.

    Raises RequestError for a name that timm does not have, and for arguments that the model cannot be built with.
    """
    import timm

    check_timm_name(name)
    shape: dict[str, Any] = {"in_chans": in_chans, "num_classes": num_classes, **args}
    rate = {"drop_path_rate": drop_path}
    # Convolutional networks take any size and no argument for it; models without stochastic depth take no rate.
    tries: list[dict[str, Any]] = [{"img_size": image_size, **rate}, rate]
    tries += [{"img_size": image_size}, {}] if drop_path == 0 else []
    while True:
        try:
            return timm.create_model(name, pretrained=False, **deepcopy(tries.pop(0) | shape))
        except Exception as error:  # whatever timm's code makes of an argument
            if isinstance(error, TypeError) and tries:
                continue
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if "'drop_path_rate'" in said and "drop_path_rate" not in args:
                raise no_stochastic_depth(name, drop_path) from None
            if not args:
                raise
            raise RequestError(f"model.timm is {name!r}, which cannot be built with {dict(args)}: {said}") from None
