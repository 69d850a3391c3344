"""A model's stages as the backbone of a dense task: feature maps in place of logits.

As the authors use their models for detection and segmentation (arXiv 2111.11418, sections 4.2 and 4.3;
github.com/sail-sg/poolformer, `fork_feat`): the map of each stage goes through a norm of its own, of the kind that the
blocks have, and the classifier with its norm is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from metaformer_ablate.errors import ModelRefused, RequestError
from metaformer_ablate.models.build import build_seeded, fused_blocks
from metaformer_ablate.models.comparators.build import build_comparator, check_timm_name, no_stochastic_depth
from metaformer_ablate.models.comparators.pvt import PVT
from metaformer_ablate.models.freezing import apply_freezing
from metaformer_ablate.models.metaformer import MetaFormer, PositionEmbedding, build_norm
from metaformer_ablate.models.own_checks import Conditions
from metaformer_ablate.models.spec import PRETRAINING_SIZE, ModelSpec
from metaformer_ablate.models.starting import fitted_first, fitted_in_size, mark_start, weights_of
from metaformer_ablate.models.weights import fit, our_names


class Backbone(nn.Module):
    """Images [B, C, H, W] to one map per stage in `outputs`, the finest first: [B, channels[i], H / strides[i], ...].

    The sides of a map are rounded as the convolutions round them.
    """

    body: Any  # the model without its classifier; what it has beyond nn.Module is known to the class that took it
    channels: tuple[int, ...]  # of the maps that it gives
    strides: tuple[int, ...]

    def forward(self, images: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether each block's activations are computed once more in the backward pass, to save memory; as in timm."""
        self.body.set_grad_checkpointing(enable)


class MetaFormerBackbone(Backbone):
    """A MetaFormer; a norm of the blocks' kind follows each stage that is given out."""

    def __init__(self, body: MetaFormer, spec: ModelSpec, outputs: Sequence[int]):
        super().__init__()
        assert spec.dims is not None and spec.stem is not None and spec.downsample is not None
        self.body, self.outputs = body, tuple(outputs)
        self.channels = tuple(spec.dims[i] for i in outputs)
        self.strides = tuple(spec.stem.stride * spec.downsample.stride**i for i in outputs)
        self.norms = nn.ModuleList(build_norm(spec, spec.norm, dim) for dim in self.channels)
        for module in body.modules():
            if isinstance(module, PositionEmbedding):
                module.resizes = True

    def forward(self, images: Tensor) -> list[Tensor]:
        x: Tensor = self.body.stem(images)
        maps: list[Tensor] = []
        for i, stage in enumerate(self.body.stages):
            x = stage(x)
            if i in self.outputs:
                maps.append(self.norms[len(maps)](x))
        return maps


class PVTBackbone(Backbone):
    """PVT, with no norm after its stages; the class token is left out (the authors' `segmentation/pvt.py`)."""

    def __init__(self, body: PVT, outputs: Sequence[int]):
        super().__init__()
        body.stages[-1].drop_class_token()  # type: ignore[operator]
        del body.norm, body.head
        self.body, self.outputs = body, tuple(outputs)
        convolutions: list[Any] = [stage.patch_embedding for stage in body.stages]
        strides = torch.tensor([conv.stride[0] for conv in convolutions]).cumprod(0).tolist()
        self.channels = tuple(convolutions[i].out_channels for i in outputs)
        self.strides = tuple(strides[i] for i in outputs)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = images, list[Tensor]()
        for i, stage in enumerate(self.body.stages):
            x = stage(x)
            if i in self.outputs:
                maps.append(x)
        return maps


class TimmBackbone(Backbone):
    """A model of timm, by its `features_only`: the maps at strides 4, 8, 16 and 32."""

    def __init__(self, name: str, args: Mapping[str, Any], channels: int, drop_path: float, outputs: Sequence[int]):
        super().__init__()
        import timm

        check_timm_name(name)
        shape: dict[str, Any] = {"pretrained": False, "features_only": True, "in_chans": channels}
        shape |= {"drop_path_rate": drop_path, **args}  # 0 is said too: some models have another default
        try:
            try:
                info: Any = timm.create_model(name, **deepcopy(shape)).feature_info
            except TypeError:  # a model that has no stochastic depth does not take its rate
                if shape["drop_path_rate"]:
                    raise
                del shape["drop_path_rate"]
                info = timm.create_model(name, **deepcopy(shape)).feature_info
            at = {stride: i for i, stride in enumerate(info.reduction())}
            places = [at[4 * 2**stage] for stage in outputs]
            self.body = timm.create_model(name, **deepcopy(shape), out_indices=places)
        except (KeyError, RuntimeError, AttributeError, TypeError) as error:
            if drop_path and "drop_path_rate" not in args and "'drop_path_rate'" in str(error):
                raise no_stochastic_depth(name, drop_path) from None
            said = " ".join(str(error).split())[:160]
            with_args = f" with {dict(args)}" if args else ""
            raise RequestError(
                f"model.timm is {name!r}, which gives no maps at strides 4, 8, 16 and 32{with_args} ({said}); "
                f"allowed here: a model with four stages"
            ) from None
        self.channels = tuple(self.body.feature_info.channels())
        self.strides = tuple(self.body.feature_info.reduction())

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.body(images))


def build_backbone(
    model: ModelSpec,
    channels: int,
    image_size: tuple[int, int] | None,
    *,
    seed: int = 0,
    kernels: str = "torch",
    outputs: Sequence[int] = (0, 1, 2, 3),
    under: Conditions | None = None,
    embedded: tuple[int, int] | None = None,
) -> Backbone:
    """The backbone of a model's settings, on the CPU, its weights drawn from a seed or read from `model.init_from`.

    Args:
        channels: of an image.
        image_size: (height, width) in pixels that weights which depend on the resolution follow; None where the sizes
            of the images vary.
        kernels, under: as in `build_model`.
        outputs: the stages whose maps are given, from 0, in rising order.
        embedded: (height, width) that position embeddings are drawn for where the sizes vary; None for those of the
            images that models are pretrained on.

    A position embedding is interpolated to a map of another size. Paths of `model.freeze` are of the body, and so are
    the batch norms of `model.batch_norm_eval`: those after the stages have no statistics to keep. Raises RequestError
    for a model that fits one resolution where sizes vary, and for one that has no such maps; else as `build_model`
    does.
    """
    if (why := model.not_a_backbone(image_size)) is not None:
        raise RequestError(why)
    height, width = image_size or embedded or (PRETRAINING_SIZE, PRETRAINING_SIZE)

    def build() -> Backbone:
        drop_path = model.drop_path or 0.0
        if model.timm is not None:
            return TimmBackbone(model.timm, model.args or {}, channels, drop_path, outputs)
        if model.comparator is not None:
            shape: dict[str, Any] = {"in_chans": channels, "num_classes": 1, "image_size": PRETRAINING_SIZE}
            body = build_comparator(model.comparator, drop_path=drop_path, **shape)
            assert isinstance(body, PVT)
            return PVTBackbone(body, outputs)
        rows, columns = model.stage_sizes(height), model.stage_sizes(width)
        sizes = [(row, column) for (row, _), (_, column) in zip(rows, columns, strict=True)]
        fused = fused_blocks(kernels)
        whole = MetaFormer(model, in_chans=channels, num_classes=None, sizes=sizes, seed=seed, fused=fused)
        return MetaFormerBackbone(whole, model, outputs)

    # Where sizes vary, parts of the user's own are tried on a wider image than they were built for.
    tried = (channels, height, width if image_size else width + 64)
    try:
        net = build_seeded(model, tried, seed, build, under)
    except ModelRefused as error:
        if image_size is not None:
            raise
        raise ModelRefused(
            f"{error}; images vary in size here: a part that fits one size of map says fixed_resolution: true in "
            f"parts.yaml"
        ) from None
    assert isinstance(net, Backbone)
    if model.init_from is not None:
        weights = weights_of(model.init_from, model.init_averaged, net.body.state_dict())
        mark_start(net, model, **load_backbone(net, weights, model.init_from))
    apply_freezing(net.body, model)
    return net


def load_backbone(net: Backbone, weights: dict[str, Tensor], source: str) -> dict[str, list[str]]:
    """Fills a backbone's body from the weights of a classifier: strictly, its classifier and last norm left out.

    A position embedding of another size is interpolated (bilinear), and the first convolution of a net for grey images
    is spread over the channels, each with an equal share. Gives the names of these tensors, as "interpolated" and
    "channels". Raises RequestError for weights that do not fit.
    """
    target = net.body.state_dict()
    named = our_names(weights) if isinstance(net, MetaFormerBackbone) else dict(weights)
    if isinstance(net, TimmBackbone):
        named = _flattened(named, {name.split(".")[0] for name in target})
    kept = {name: value for name, value in named.items() if name in target or not _of_classifier(name)}
    interpolated = []
    for name, value in kept.items():
        if name in target and (fitted := fitted_in_size(name, value, target[name])) is not None:
            interpolated.append(name)
            kept[name] = fitted
    first = fitted_first(kept, target)
    kept |= first
    if isinstance(net, PVTBackbone):
        kept = {name: value for name, value in kept.items() if not name.endswith("class_token")}
    net.body.load_state_dict(fit(kept, target, source))
    return {"interpolated": interpolated, "channels": list(first)}


def _flattened(weights: Mapping[str, Tensor], parts: set[str]) -> dict[str, Tensor]:
    """Weights under the names of timm's `features_only`, which has a part `stages_0` where the model has `stages.0`."""
    dotted = {f"{part.replace('_', '.')}.": f"{part}." for part in parts if "_" in part}
    begins = {name: next((begin for begin in dotted if name.startswith(begin)), "") for name in weights}
    return {dotted.get(begins[name], "") + name.removeprefix(begins[name]): value for name, value in weights.items()}


def _of_classifier(name: str) -> bool:
    return name.split(".")[0] in ("head", "norm", "fc", "classifier")
