"""The arguments that a model of timm takes, as the installed timm has it.

What timm says of a model is kept in the user's cache, so it is asked once for each version, which loads torch.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from metaformer_ablate.errors import nearest
from metaformer_ablate.models.class_arguments import GIVEN, of_class
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.system.cache import cache_dir, write_cache

# What timm's `create_model` takes for itself.
_WEIGHTS = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
_NOT_ARGUMENTS = ("features_only", "out_indices", "feature_cls", "scriptable", "exportable", "no_jit")


def problem_of_timm(name: str, args: Mapping[str, Any]) -> tuple[str, str] | None:
    """(setting, sentence) of the first argument that a model of timm cannot be built with, as far as its class tells;
    None where there is none, or no such model, which building it says."""
    for key, value in args.items():
        path = f"model.args.{key}"
        if key in GIVEN:
            return path, f"{path} follows from the data; leave it out"
        if key in _WEIGHTS:
            return path, f"{path}: weights come from model.init_from, whose content is in the id; leave it out"
        if value is None:
            return path, f"{path} is null, which timm leaves out; allowed: a value"
    known = _arguments(name)
    if known is not None and (unknown := [key for key in args if key not in known or key in _NOT_ARGUMENTS]):
        path, found, allowed = f"model.args.{unknown[0]}", unknown[0], ", ".join(known)
        return path, f"{path}: unknown argument of timm's {name}{nearest(found, known)}; allowed: {allowed}"
    return None


@lru_cache(maxsize=256)
def _arguments(name: str) -> list[str] | None:
    """The arguments of a model's class and of the function that builds it; None where it takes any name."""
    key = digest([name, version("timm"), version("torch"), _READING])
    path = cache_dir() / "timm" / f"{key[:24]}.json"
    try:
        found = read_json(path)
        if found is None or (isinstance(found, list) and all(isinstance(each, str) for each in found)):
            return found
    except (OSError, ValueError):
        pass
    found = _ask_timm(name)
    write_cache(path, json.dumps(found))
    return found


# Raised whenever timm would be understood differently; what is in the cache is of one version.
_READING = 1


def _ask_timm(name: str) -> list[str] | None:
    """What the installed timm says. Loads torch."""
    import timm
    import torch
    from timm.models import model_entrypoint

    if not timm.is_model(name):
        return None
    try:
        with torch.device("meta"):
            net = timm.create_model(name)
    except Exception:  # one whose constructor looks at numbers
        net = timm.create_model(name)
    if any(each.kind is each.VAR_KEYWORD for each in inspect.signature(type(net).__init__).parameters.values()):
        return None
    by_function = [
        key
        for key, each in inspect.signature(model_entrypoint(name)).parameters.items()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    ]
    names = dict.fromkeys([*of_class(type(net)).names, *by_function])
    return [key for key in names if key not in (*GIVEN, *_WEIGHTS, *_NOT_ARGUMENTS)]
