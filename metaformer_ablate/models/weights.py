"""Weights of others in and out: the authors' checkpoints (github.com/sail-sg/poolformer and .../metaformer) and timm's.

Our modules are named as timm's, so timm's weights differ in shape alone (1 x 1 convolutions for our linear layers) and
the authors' in names. Files are opened as safetensors or with `weights_only=True`: nothing in them is executed.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaformer_ablate.errors import RequestError, one_line
from metaformer_ablate.models.averaged import AVERAGED
from metaformer_ablate.system.files import open_regular

_WRAPPERS = ("state_dict", "model", "model_state")


# What Lightning, data parallel and torch.compile put before the names of a net's weights.
_PREFIX = re.compile(r"(module|net|model|_orig_mod)\.")


def read_weights(path: str | Path, averaged: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without the wrappers around them.

    `averaged` names the wrapper of averaged weights to be taken before others (averaged.py). Raises RequestError for
    any other file, and for tensors that no model can hold: sparse, quantized or not finite.
    """
    path = Path(path)
    try:
        open_regular(path).close()
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return _checked(load_file(path), path)
        with torch.serialization.safe_globals(_harmless()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except RequestError:
        raise
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # every reader has errors of its own, some in colours and many lines
        said = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(str(error).split()))
        said = said.rpartition("WeightsUnpickler error: ")[2]  # before it, torch says how to execute what is inside
        if (found := re.search(r"GLOBAL ([\w.]+)", said)) is not None:
            said = f"it holds objects of {found[1]}, which are not read"
        raise RequestError(f"{path}: not a checkpoint of tensors: {one_line(said)[:160]}") from None
    for key in (averaged, *_WRAPPERS, *AVERAGED):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise RequestError(f"{path}: holds no mapping of names to tensors, bare or under {', '.join(_WRAPPERS)}")
    # Our own checkpoints hold the averaged weights beside those that were trained: what was evaluated is the start.
    own = {name: value for name, value in content.items() if name.startswith("averaged.module.")}
    return _checked(
        {name.removeprefix("averaged.module."): value for name, value in own.items()} or dict(content), path
    )


def bare_names(weights: Mapping[str, Tensor], target: Container[str], source: str) -> dict[str, Tensor]:
    """Weights without what stands before their names, as far as `target` has no such name.

    Raises RequestError where two tensors have one name then.
    """
    bare: dict[str, Tensor] = {}
    for whole, value in weights.items():
        name = whole
        while name not in target and (prefix := _PREFIX.match(name)) is not None:
            name = name[prefix.end() :]
        if name in bare:
            raise RequestError(
                f"{source}: holds several tensors of one name, which differ in a prefix such as 'module.'"
            )
        bare[name] = value
    return bare


def _harmless() -> list[Any]:
    """Classes of plain values beside the weights that timm and others save; opening them runs nothing."""
    from argparse import Namespace
    from pathlib import PosixPath

    import numpy as np

    numbers = [np.dtype, *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool"))]
    scalar = np.float64(0).__reduce__()[0]  # which NumPy has under one name from 2.0 on and had under another before
    return [Namespace, PosixPath, scalar, (scalar, "numpy.core.multiarray.scalar"), *numbers]


def _checked(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for name, value in weights.items():
        if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type == "meta":
            raise RequestError(f"{path}: {name} is a tensor of another kind ({value.layout}, {value.dtype})")
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise RequestError(f"{path}: {name} holds NaN or Inf; a model cannot start from it")
    return weights


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
    what is missing, unexpected or of another shape or type.
    """
    problems = []
    if missing := [name for name in target if name not in weights]:
        problems.append(f"missing {_some(missing)}")
    if unexpected := [name for name in weights if name not in target]:
        problems.append(f"unexpected {_some(unexpected)}")
    fitted, other, types = {}, [], []
    for name, value in weights.items():
        if name in target:
            wanted = target[name].shape
            if value.is_floating_point() != target[name].is_floating_point():
                types.append(f"{name} is {value.dtype}, the model has {target[name].dtype}")
            elif [n for n in value.shape if n != 1] == [n for n in wanted if n != 1]:
                fitted[name] = value.reshape(wanted)
            else:
                other.append(f"{name} is {list(value.shape)}, the model has {list(wanted)}")
    if types:
        problems.append(f"of another type: {_some(types)}")
    if other:
        problems.append(f"of another shape: {_some(other)}")
    if problems:
        raise RequestError(f"{source} does not fit the model: {'; '.join(problems)}")
    return fitted


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
