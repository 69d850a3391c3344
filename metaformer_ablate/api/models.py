"""Models and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.cost.counting import Cost, count_model
from metaformer_ablate.errors import RequestError, shown, unknown
from metaformer_ablate.models.presets import NAMED, SIZES
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.spec.experiment import load_recipe, package_recipe
from metaformer_ablate.spec.known import flatten
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Cost", "count", "create_model", "named_spec"]


def create_model(
    name: str = "poolformer_s12",
    *,
    num_classes: int = 1000,
    in_chans: int = 3,
    image_size: int = 224,
    seed: int | None = None,
    **settings: Any,
) -> nn.Module:
    """A MetaFormer, or a model of the paper's table 2, as an ordinary `nn.Module`: images to logits.

    `net(images)` maps float images [B, in_chans, image_size, image_size] to logits [B, num_classes];
    `net.forward_features(images)` of a MetaFormer gives its last map [B, C, H, W], before the head's norm. Once this
    package is imported, `timm.create_model("ma_" + name)` builds the same, with timm's words too (`img_size`,
    `drop_path_rate`, `drop_rate`).

    Args:
        name: a named model (`ablate list models`): the paper's PoolFormers and hybrids (arXiv 2111.11418, tables 1 and
            5), the models of MetaFormer Baselines (arXiv 2210.13452), PVT and Swin-Mixer; or a size, as `s12` or `t5`.
        num_classes: length of the logits, at least 1. 0 leaves the classifier out, as in timm: [B, C], after the
            head's norm and the mean over positions.
        in_chans: channels of an image.
        image_size: pixels per side. Attention, pooling and convolutions take other sizes too; a random matrix, an MLP
            over tokens and position embeddings fit this one.
        seed: what the weights are drawn from, 0 to 2**31 - 1. None draws one from torch's global generator, which
            `torch.manual_seed` sets.
        settings: what to change, by the names that rows of experiments use under `model.`: `token_mixer="attention"`
            or one name per stage, `norm`, `pool_size`, `depths`, `stem={"kernel": 3, "stride": 1, "padding": 1}`, ...

    Raises RequestError (a ValueError) in one sentence for an unknown name or setting, for a value that is not allowed,
    and for a setting that the chosen parts do not read.
    """
    import torch

    from metaformer_ablate.models.build import build_model

    _check_integer("num_classes", num_classes, 0)
    _check_integer("in_chans", in_chans, 1)
    if seed is not None:
        _check_integer("seed", seed, 0)
    spec = named_spec(name, Layer(_settings(settings, image_size), lambda path: "create_model", strict=True))
    drawn = int(torch.randint(2**31, ())) if seed is None else seed
    net = build_model(spec.model, in_chans, num_classes or 1, image_size, seed=drawn)
    return net if num_classes else _without_classifier(net, name)


def _settings(settings: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """What a caller set, by dotted path. A tuple is a list to the spec."""
    tree = {f"model.{key}": list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
    return {"data.image_size": image_size, **flatten(tree, lambda path: "create_model")}


def _without_classifier(net: nn.Module, name: str) -> nn.Module:
    from torch import nn

    from metaformer_ablate.models.metaformer import MetaFormer

    if not isinstance(net, MetaFormer):
        raise RequestError(f"create_model: num_classes is 0; allowed for {name}: an integer of at least 1")
    net.head.fc = nn.Identity()
    return net


def named_spec(name: str, overrides: Layer, recipe: str | None = None) -> RunSpec:
    """The resolved spec of a named model, or of a size, under a recipe: by default the package's own for ImageNet.

    Raises RequestError for another name.
    """
    if name not in NAMED and name not in SIZES:
        raise RequestError(unknown("model", name, [*NAMED, *SIZES]))
    key = "model.name" if name in NAMED else "model.size"
    under = load_recipe(recipe or package_recipe("imagenet"))
    return resolve([under.layer, Layer({key: name}, overrides.where), overrides])


def count(model: nn.Module | str, size: int | Sequence[int] = 224) -> Cost:
    """Parameters, multiply-adds (MACs) and what was not counted, of any PyTorch model for one image.

    MACs are fvcore's "flops": convolutions, linear layers, matrix products and, which fvcore leaves out, fused
    attention; BatchNorm at 2 and GroupNorm at 5 per element. In the models of this package LayerNorm and norms without
    a bias are not counted, as in the papers' tables; in any other every norm is, as fvcore does. `ablate cost` and the
    tables say the same numbers.

    Args:
        model: a module that takes one batch [1, C, H, W], or the name of a model (`create_model`).
        size: pixels per side of an image of 3 channels, or (channels, height, width).

    Returns a `Cost`: `params` (trained), `frozen_params`, `macs`, `macs_by_operator`, `activations` (elements out of
    counted operators), `uncounted` (calls by operator), ...

    Raises RequestError for a size that is none, and for a name that is unknown.
    """
    image = (3, size, size) if isinstance(size, int) else tuple(size)
    if len(image) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in image):
        raise RequestError(f"count: size is {shown(size)}; allowed: pixels per side, or (channels, height, width)")
    net = model
    if isinstance(net, str):
        net = create_model(net, in_chans=image[0], image_size=max(image[1:]), seed=0)
    own = type(net).__module__.startswith("metaformer_ablate.")
    return count_model(net, image, all_norms=not own)


def _check_integer(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        raise RequestError(f"create_model: {name} is {shown(value)}; allowed: an integer of at least {least}")
