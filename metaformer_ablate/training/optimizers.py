"""The optimisers that there are: those of timm's factory, as the installed timm has them.

What timm says is kept in the user's cache, so it is asked once for each version, which loads torch. Not among them:
adahessian, which needs gradients of gradients, and those of apex and bitsandbytes.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from metaformer_ablate.settings.layers import digest
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.system.cache import cache_dir, write_cache


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Optimizer:
    """What an optimiser reads: `train.betas` and `train.eps`, with its own values of them, and `optimizer_args`.

    `betas` and `eps` are None where it has none; three betas are among the arguments.
    """

    betas: tuple[float, float] | None
    eps: float | None
    arguments: tuple[str, ...]


# Known without timm: what most recipes name. A test compares them with what timm says.
_KNOWN = {
    "adamw": Optimizer((0.9, 0.999), 1e-8, ("amsgrad", "foreach", "fused")),
    "sgd": Optimizer(None, None, ("dampening", "foreach", "fused", "momentum", "nesterov")),
    "momentum": Optimizer(None, None, ("dampening", "foreach", "fused", "momentum", "nesterov")),
}


# Settings of their own (`train.lr`), what turns training round, and what no run can follow.
_NOT_ARGUMENTS = {"self", "params", "lr", "weight_decay", "maximize", "differentiable", "capturable", "verbose"}


def find_optimizer(name: str) -> Optimizer | None:
    """An optimiser by name; None where the installed timm has none of it."""
    return _KNOWN.get(name) or all_optimizers().get(name)


@cache
def all_optimizers() -> dict[str, Optimizer]:
    """Every optimiser by name, in alphabetical order."""
    path = cache_dir() / "optimizers" / f"{digest([version('timm'), version('torch'), _READING])[:24]}.json"
    table = TypeAdapter(dict[str, Optimizer])
    try:
        return table.validate_json(json.dumps(read_json(path)))
    except (OSError, ValueError):
        found = ask_timm()
        write_cache(path, json.dumps({name: asdict(one) for name, one in found.items()}))
        return found


# Raised whenever timm would be understood differently; what is in the cache is of one version.
_READING = 1


def ask_timm() -> dict[str, Optimizer]:
    """What the installed timm says. Loads torch."""
    from timm.optim import get_optimizer_info, list_optimizers

    found = {}
    for name in list_optimizers():
        assert isinstance(name, str)
        info = get_optimizer_info(name)
        if isinstance(info.opt_class, str) or info.second_order:
            continue
        parameters = inspect.signature(info.opt_class).parameters
        defaults = {key: parameter.default for key, parameter in parameters.items()} | (info.defaults or {})
        betas, eps = _betas(defaults.get("betas")), _eps(defaults.get("eps"))
        read = {key for key, value in (("betas", betas), ("eps", eps)) if value is not None}
        found[name] = Optimizer(betas, eps, tuple(sorted(parameters.keys() - _NOT_ARGUMENTS - read)))
    return found


def _betas(value: Any) -> tuple[float, float] | None:
    return (float(value[0]), float(value[1])) if isinstance(value, tuple) and len(value) == 2 else None


def _eps(value: Any) -> float | None:
    return value if isinstance(value, float) else None
