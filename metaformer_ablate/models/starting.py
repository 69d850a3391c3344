"""The weights that a net starts from (`model.init_from`), fitted to its classes, its channels and its size.

What is not taken as it is in the file is said in the record (`start_of`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.metaformer import MetaFormer
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.models.weights import bare_names, fit, our_names, read_weights

_MARK = "ablate_start"  # on a net: what `start_of` says


def start_from(net: nn.Module, model: ModelSpec, num_classes: int) -> None:
    """Fills a classifier from the checkpoint of `model.init_from`: ours, the authors', timm's or of the net itself.

    With `model.new_head` its last layer keeps the weights that the seed gave it. A position embedding of another size
    is interpolated, and the first convolution spread over more channels than one, or summed to one. Raises RequestError
    where anything else does not fit.
    """
    source, target = str(model.init_from), net.state_dict()
    weights = weights_of(source, model.init_averaged, target)
    interpolated: list[str] = []
    if isinstance(net, MetaFormer):
        weights = our_names(weights)
    else:
        before, weights = weights, _as_timm_reads(net, weights, source)
        interpolated += [n for n, value in before.items() if n in weights and value.numel() != weights[n].numel()]
    head = classifier_names(net, num_classes)
    new = head if model.new_head else []
    if model.new_head:
        if not head:
            raise RequestError(
                f"model.new_head is true, and {type(net).__name__} has no last layer of {num_classes} outputs; "
                f"allowed: a net with one, or with a method get_classifier() that returns it"
            )
        weights = {name: value for name, value in weights.items() if name not in head}
        weights |= {name: target[name] for name in head}
    elif other := [n for n in head if n in weights and weights[n].shape[:1] != target[n].shape[:1]]:
        raise RequestError(
            f"{source} is of {len(weights[other[0]])} classes, the data has {num_classes}; allowed: "
            f"model.new_head=true, by which {', '.join(head)} begin anew"
        )
    for name, value in weights.items():
        if name in target and (fitted := fitted_in_size(name, value, target[name])) is not None:
            interpolated.append(name)
            weights[name] = fitted
    first = fitted_first(weights, target)
    weights |= first
    net.load_state_dict(fit(weights, target, source))
    mark_start(net, model, new=new, interpolated=interpolated, channels=list(first))


def mark_start(net: nn.Module, model: ModelSpec, **names: list[str]) -> None:
    """Notes on a net how it started, for `start_of`: of the tensors that were not taken as they are, the names."""
    weights = model.init_averaged or "as trained"
    setattr(net, _MARK, {"weights": weights, **{kind: found for kind, found in names.items() if found}})


def start_of(net: nn.Module) -> dict[str, Any] | None:
    """How a net started from a file: {"weights": which of the file's, "new", "interpolated", "channels": names of
    tensors}; None where it did not."""
    return next((found for m in net.modules() if (found := getattr(m, _MARK, None)) is not None), None)


def start_in_words(net: nn.Module) -> str | None:
    """What of a file's weights a net does not start with as it is; None where it starts with all, or from no file."""
    start = start_of(net) or {}
    said = [f"its averaged weights ({start['weights']})"] if start.get("weights", "as trained") != "as trained" else []
    said += [f"{key}: {', '.join(start[key])}" for key in ("new", "interpolated", "channels") if key in start]
    return "; ".join(said) or None


def _as_timm_reads(net: nn.Module, weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Weights of one of timm's models by timm's own rules: other names, position embeddings of another size."""
    module = type(net).__module__
    rules = getattr(sys.modules[module], "checkpoint_filter_fn", None) if module.startswith("timm.") else None
    if rules is None:
        return weights
    try:
        return dict(rules(dict(weights), net))
    except Exception as error:  # timm checks nothing there
        said = " ".join(str(error).split())[:160]
        raise RequestError(f"{source} does not fit {type(net).__name__}: {type(error).__name__}: {said}") from None


def classifier_names(net: nn.Module, num_classes: int) -> list[str]:
    """The parameters of the layers that give the logits: in what timm's `get_classifier()` returns, else in the whole
    net, the last one with so many outputs."""
    getter: Any = getattr(net, "get_classifier", None)
    found = getter() if callable(getter) else None
    within = [part for part in (found if isinstance(found, (tuple, list)) else [found]) if isinstance(part, nn.Module)]
    last = [
        layers[-1]
        for part in within or [net]
        if (
            layers := [
                layer
                for layer in part.modules()
                if isinstance(layer, (nn.Linear, nn.Conv2d)) and len(layer.weight) == num_classes
            ]
        )
    ]
    return [
        f"{path}.{name}"
        for path, module in net.named_modules()
        if any(module is layer for layer in last)
        for name, _ in module.named_parameters(recurse=False)
    ]


def fitted_in_size(name: str, value: Tensor, target: Tensor) -> Tensor | None:
    """A position embedding [1, C, H, W] or [1, N, C] in the size of another; None for what is none, or has that size.

    Maps are interpolated bilinearly; tokens by timm's `resample_abs_pos_embed` (bicubic), where they are a square and
    at most two others before it.
    """
    if "pos_embed" not in name.rpartition(".")[2] or value.ndim != target.ndim or value.shape == target.shape:
        return None
    if value.ndim == 4 and value.shape[:2] == target.shape[:2]:
        return F.interpolate(value, size=target.shape[-2:], mode="bilinear", align_corners=False)
    if value.ndim == 3 and value.shape[2] == target.shape[2]:
        from timm.layers import resample_abs_pos_embed

        for before in (0, 1, 2):
            old, new = math.isqrt(value.shape[1] - before), math.isqrt(target.shape[1] - before)
            if old**2 == value.shape[1] - before and new**2 == target.shape[1] - before:
                return resample_abs_pos_embed(value, [new, new], [old, old], num_prefix_tokens=before)
    return None


def fitted_first(weights: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """{name: the first convolution [n, c, k, k] of `target`} where its weights are of images of other channels; {}
    where nothing is to be done.

    Of grey images each of several channels has an equal share; to grey ones the channels are summed.
    """
    name = next((name for name, value in target.items() if value.ndim == 4), "")
    if name not in weights or weights[name].ndim != 4:
        return {}
    value, one, other = weights[name], weights[name].shape, target[name].shape
    if (one[0], *one[2:]) != (other[0], *other[2:]) or one == other or 1 not in (one[1], other[1]):
        return {}
    return {name: value.expand(other) / other[1] if one[1] == 1 else value.sum(1, keepdim=True)}


def weights_of(path: str, averaged: str | None, target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names that `target` has."""
    return bare_names(read_weights(path, averaged), target, path)
