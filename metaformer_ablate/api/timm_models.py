"""This package's named models in timm's registry, as `ma_` and their name: timm has a `poolformer_s12` of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.presets import NAMED

if TYPE_CHECKING:
    from torch import nn

PREFIX = "ma_"

# timm's words for what a spec calls otherwise.
_WORDS = {"img_size": "image_size", "drop_path_rate": "drop_path", "drop_rate": "head_dropout"}

# What timm hands to every model and what means nothing here.
_OF_TIMM = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def register_models() -> None:
    """Registers every named model that timm's registry does not have yet."""
    from timm.models import is_model, register_model

    for name in NAMED:
        if not is_model(PREFIX + name):
            register_model(_entry_point(name))


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def build(pretrained: bool = False, **settings: Any) -> nn.Module:
        from metaformer_ablate.api.models import create_model

        if pretrained:
            raise RequestError(
                f"{PREFIX}{name}: pretrained is True, and there are no weights to download; allowed: pretrained=False "
                f"with checkpoint_path=FILE, or timm's own {name}"
            )
        given = {_WORDS.get(key, key): value for key, value in settings.items() if key not in _OF_TIMM}
        if not given.get("head_dropout", True) and NAMED[name].get("head") != "mlp":
            del given["head_dropout"]  # timm's train.py hands 0 to every model, and a linear head has none
        return create_model(name, **given)

    build.__name__ = build.__qualname__ = PREFIX + name  # what timm registers it as
    build.__doc__ = f"`metaformer_ablate.create_model({name!r})` with timm's words for its arguments."
    return build
