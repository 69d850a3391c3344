"""Optimiser groups, learning rate and seeds of a step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.training.spec import TrainSpec


def seed_generators(seed: int, device: torch.device) -> None:
    """`torch.manual_seed` for the CPU and one device.

    Where there are no others, torch's own takes a millisecond per call: it notes, with the stack, what each kind of
    device is to be told once it is there.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def decayed_names(net: nn.Module, decay_on: str | None = None) -> set[str]:
    """The names of the parameters that weight decay pulls to zero: `train.decay_on`.

    Without a choice not decayed: biases and everything with one dimension or none, that is norm weights, LayerScale and
    the scalars of activations. They set offsets and gains, which have no reason to be near zero. Nor what a comparator
    names in its `no_weight_decay()`, such as class tokens. This is the rule of the authors' script (timm's
    `param_groups_weight_decay`), by which position embeddings of a MetaFormer are decayed.
    """
    named = list(net.named_parameters())
    if decay_on == "all":
        return {name for name, _ in named}
    if decay_on == "matrices":
        return {name for name, p in named if p.ndim > 1}
    exempt = _exempt(net)
    return {name for name, p in named if p.ndim > 1 and not name.endswith(".bias") and name not in exempt}


def _exempt(net: nn.Module, prefix: str = "") -> set[str]:
    """What the outermost modules that say so exempt: of a detector it is the backbone within it."""
    told: Any = getattr(net, "no_weight_decay", None)
    if told is not None:
        return {f"{prefix}{name}" for name in told()}
    return {name for key, child in net.named_children() for name in _exempt(child, f"{prefix}{key}.")}


def weight_decay_groups(net: nn.Module, weight_decay: float, decayed: set[str] | None = None) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: what is decayed (`decayed_names` unless given), and what is not."""
    decayed = decayed_names(net) if decayed is None else decayed
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, p in net.named_parameters():
        if p.requires_grad:
            groups[name not in decayed].append(p)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def make_optimizer(net: nn.Module, spec: TrainSpec, decayed: set[str] | None = None) -> torch.optim.Optimizer:
    """The optimiser of a run over the parameters of a net that are trained, at the peak learning rate.

    AdamW is torch's fused one, any other the one that timm's factory makes. Raises RequestError for arguments that it
    does not take, and where nothing is trained.
    """
    groups = [group for group in weight_decay_groups(net, spec.weight_decay, decayed) if group["params"]]
    if not groups:
        raise RequestError(f"model.freeze leaves nothing to train of {type(net).__name__}; allowed: parts of it")
    arguments: dict[str, Any] = {"betas": spec.betas, "eps": spec.eps}
    arguments = {key: value for key, value in arguments.items() if value is not None} | (spec.optimizer_args or {})
    try:
        if spec.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=spec.lr, **({"fused": True} | arguments))
        from timm.optim import create_optimizer_v2

        return create_optimizer_v2(groups, spec.optimizer, lr=spec.lr, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise RequestError(
            f"train.optimizer is {spec.optimizer}, which cannot be made with {arguments}: {error}"
        ) from None


def learning_rate(spec: TrainSpec, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0.

    In the warm-up of a cosine or a constant schedule linear from `warmup_lr` to `lr`, as timm's schedules with
    `warmup_prefix=False`; in that of the others what the schedule says times a factor that rises from `warmup_lr / lr`
    to 1, as mmcv's `warmup="linear"`. `schedule_unit: epoch` holds the value of the epoch's first step for the whole
    epoch; a warm-up that is given in steps still rises with each of them.
    """
    held = step - step % steps_per_epoch if spec.schedule_unit == "epoch" else step
    if spec.warmup_steps is None:
        assert spec.warmup_epochs is not None
        place, warmup = held, spec.warmup_epochs * steps_per_epoch
    else:
        place, warmup = step, spec.warmup_steps
    if place >= warmup:
        return _scheduled(spec, held, steps_per_epoch)
    assert spec.warmup_lr is not None
    if spec.schedule in ("cosine", "constant"):
        return spec.warmup_lr + (spec.lr - spec.warmup_lr) * place / warmup
    first = spec.warmup_lr / spec.lr
    return _scheduled(spec, held, steps_per_epoch) * (first + (1 - first) * place / warmup)


def _scheduled(spec: TrainSpec, step: int, steps_per_epoch: int) -> float:
    """What the schedule says without the warm-up: it begins at step 0 all the same.

    Cosine and poly, (1 - share of the steps) ** `power`, fall from `lr` to `min_lr`, which the cool-down keeps; step
    multiplies by `gamma` at each of the `milestones` (torch's MultiStepLR).
    """
    if spec.schedule == "constant":
        return spec.lr
    if spec.schedule == "step":
        assert spec.milestones is not None and spec.gamma is not None
        unit = steps_per_epoch if spec.steps is None else 1
        return spec.lr * spec.gamma ** sum(step >= milestone * unit for milestone in spec.milestones)
    total = spec.schedule_steps(steps_per_epoch)
    assert spec.min_lr is not None
    if step >= total:
        return spec.min_lr
    if spec.schedule == "poly":
        assert spec.power is not None
        return spec.min_lr + (spec.lr - spec.min_lr) * (1 - step / total) ** spec.power
    return spec.min_lr + (spec.lr - spec.min_lr) * (1 + math.cos(math.pi * step / total)) / 2
