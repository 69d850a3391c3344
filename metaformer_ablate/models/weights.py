"""Weights of others in and out: the authors' checkpoints (github.com/sail-sg/poolformer and .../metaformer) and timm's.

Our modules are named as timm's, so timm's weights differ in shape alone (1 x 1 convolutions for our linear layers) and
the authors' in names. Files are opened as safetensors or with `weights_only=True`: nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaformer_ablate.errors import RequestError

_WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_state")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the wrappers around them. Raises RequestError for any other file."""
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # every reader has errors of its own
        raise RequestError(f"{path}: not a checkpoint of tensors: {' '.join(str(error).split())[:160]}") from None
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise RequestError(f"{path}: holds no mapping of names to tensors, bare or under {', '.join(_WRAPPERS)}")
    # What Lightning and data parallel put before the names.
    return {re.sub(r"^(module\.|net\.)+", "", name): value for name, value in content.items()}


def our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under our names, whichever of the three formats they come in."""
    if any(name.startswith("patch_embed.") for name in weights):
        return _from_poolformer(weights)
    if any(name.startswith("downsample_layers.") for name in weights):
        return _from_baselines(weights)
    return dict(weights)


def _from_poolformer(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`network` is one list of stages, down-samplings and position embeddings; only its order tells which is where."""
    kinds: dict[int, str] = {}
    for name in weights:
        if match := re.match(r"network\.(\d+)\.(proj|pos_embed|\d+)", name):
            kinds[int(match[1])] = match[2] if match[2] in ("proj", "pos_embed") else "blocks"
    # A stage is what a down-sampling opens; its position embedding and its blocks follow.
    stage_of: dict[int, int] = {}
    stage = 0
    for index in sorted(kinds):
        stage += kinds[index] == "proj"
        stage_of[index] = stage
    renamed = {}
    for name, value in weights.items():
        if match := re.match(r"network\.(\d+)\.(.*)", name):
            index, rest = int(match[1]), match[2]
            place = {"proj": "downsample.conv", "pos_embed": "position.pos_embed", "blocks": "blocks"}[kinds[index]]
            rest = f".{rest}" if kinds[index] == "blocks" else rest.removeprefix(kinds[index])
            rest = re.sub(r"\.layer_scale_([12])$", r".layer_scale\1.scale", rest)
            name = f"stages.{stage_of[index]}.{place}{rest}"
        else:
            name = re.sub(r"^patch_embed\.proj\.", "stem.conv.", name)
            name = re.sub(r"^norm\.", "head.norm.", name)
            name = re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name)
        renamed[name] = value
    return renamed


# First match wins: their `norm` is our `head.norm`; their `head.norm`, inside the classifier, is our `head.fc.norm`.
_BASELINES = (
    (r"^downsample_layers\.0\.post_norm\.", "stem.norm."),
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.pre_norm\.", r"stages.\1.downsample.norm."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"^norm\.", "head.norm."),
    (r"^head\.", "head.fc."),
)


def _from_baselines(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, value in weights.items():
        for pattern, ours in _BASELINES:
            if re.match(pattern, name):
                name = re.sub(pattern, ours, name)
                break
        renamed[name] = value
    return renamed


def fit(weights: Mapping[str, Tensor], target: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Weights in the shapes of `target`, whose names they must have exactly.

    Only axes of length one may differ, as between a linear layer and a 1 x 1 convolution. Raises RequestError with
    what is missing, unexpected or of another shape.
    """
    problems = []
    if missing := [name for name in target if name not in weights]:
        problems.append(f"missing {_some(missing)}")
    if unexpected := [name for name in weights if name not in target]:
        problems.append(f"unexpected {_some(unexpected)}")
    fitted, other = {}, []
    for name, value in weights.items():
        if name in target:
            wanted = target[name].shape
            if [n for n in value.shape if n != 1] == [n for n in wanted if n != 1]:
                fitted[name] = value.reshape(wanted)
            else:
                other.append(f"{name} is {list(value.shape)}, the model has {list(wanted)}")
    if other:
        problems.append(f"of another shape: {_some(other)}")
    if problems:
        raise RequestError(f"{source} does not fit the model: {'; '.join(problems)}")
    return fitted


def load_weights(net: nn.Module, path: str | Path) -> None:
    """Fills a model from a checkpoint of ours, of the authors or of timm; strictly."""
    state = net.state_dict()
    net.load_state_dict(fit(our_names(read_weights(path)), state, str(path)))


def to_timm(net: nn.Module, timm_net: nn.Module) -> dict[str, Tensor]:
    """Our weights in the names and shapes of timm's model of the same architecture.

    timm's PoolFormer pools before its head's norm: the weights go over, the logits are not the same (see `Head`).
    """
    return fit(net.state_dict(), timm_net.state_dict(), "the model")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def save_weights(weights: Mapping[str, Any], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors, with words about them."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in weights.items()}, path, metadata)
