"""How an image becomes a tensor, in training and in evaluation."""

from __future__ import annotations

from typing import Any

import timm.data.auto_augment
from PIL import Image
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.errors import RequestError


def training_transform(spec: DataSpec) -> Any:
    """PIL image -> uint8 [3, H, W], as timm's loader makes it for the authors' script; draws from `random`, NumPy and
    torch. Colour jitter is not in the spec: timm leaves it out where RandAugment is on."""
    assert spec.crop_scale is not None and spec.interpolation is not None
    try:
        transform = create_transform(
            spec.net_shape[2],
            is_training=True,
            scale=(spec.crop_scale[0], spec.crop_scale[1]),
            hflip=0.5 if spec.flip else 0.0,
            color_jitter=None,  # type: ignore[arg-type]
            auto_augment=spec.rand_augment,
            interpolation=spec.interpolation,
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
            use_prefetcher=True,
        )
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"data.rand_augment is {spec.rand_augment!r}, which timm does not read ({reason}); allowed: a policy such "
            "as rand-m9-mstd0.5-inc1, or null"
        ) from None
    for step in transform.transforms:
        for op in getattr(step, "ops", ()):  # of RandAugment
            if op.aug_fn is timm.data.auto_augment.posterize:
                op.aug_fn = posterize
    return transform


def posterize(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's, also for 0 bits, to which its increasing levels go: black, as with the Pillow that the authors had.
    From 13 on Pillow refuses 0, and every seven hundredth image or so would end the run."""
    if bits == 0:
        return Image.new(picture.mode, picture.size)
    return timm.data.auto_augment.posterize(picture, bits)


def evaluation_transform(spec: DataSpec) -> Any:
    """PIL image -> uint8 [3, H, W]: the shorter side to size / eval_crop, then the middle."""
    assert spec.eval_interpolation is not None
    return create_transform(
        spec.net_shape[2],
        is_training=False,
        interpolation=spec.eval_interpolation,
        crop_pct=spec.eval_crop,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        use_prefetcher=True,
    )
