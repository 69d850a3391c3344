"""Optimiser groups, learning rate and seeds of a step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from metaformer_ablate.training.spec import TrainSpec


def seed_generators(seed: int, device: torch.device) -> None:
    """`torch.manual_seed` for the CPU and one device.

    Where there are no others, torch's own takes a millisecond per call: it notes, with the stack, what each kind of
    device is to be told once it is there.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def decayed_names(net: nn.Module) -> set[str]:
    """The names of the parameters that weight decay pulls to zero.

    Not decayed: biases and everything with one dimension or none, that is norm weights, LayerScale and the scalars of
    activations. They set offsets and gains, which have no reason to be near zero. Nor what a comparator names in its
    `no_weight_decay()`, such as class tokens. This is the rule of the authors' script (timm's
    `param_groups_weight_decay`), by which position embeddings of a MetaFormer are decayed.
    """
    told: Any = getattr(net, "no_weight_decay", tuple)
    exempt = told()
    named = net.named_parameters()
    return {name for name, p in named if p.ndim > 1 and not name.endswith(".bias") and name not in exempt}


def weight_decay_groups(net: nn.Module, weight_decay: float, decayed: set[str] | None = None) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: what is decayed (`decayed_names` unless given), and what is not."""
    decayed = decayed_names(net) if decayed is None else decayed
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, p in net.named_parameters():
        if p.requires_grad:
            groups[name not in decayed].append(p)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def learning_rate(spec: TrainSpec, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0.

    Linear from `warmup_lr` to `lr` over the warm-up, then along a cosine that began at step 0 and reaches `min_lr` at
    the end, as timm's schedule with `warmup_prefix=False`; `min_lr` in the cool-down. `schedule_unit: epoch` holds the
    value of the epoch's first step for the whole epoch.
    """
    total = spec.epochs * steps_per_epoch
    warmup = spec.warmup_epochs * steps_per_epoch
    if spec.schedule_unit == "epoch":
        step -= step % steps_per_epoch
    if step < warmup:
        assert spec.warmup_lr is not None
        return spec.warmup_lr + (spec.lr - spec.warmup_lr) * step / warmup
    if spec.schedule == "constant":
        return spec.lr
    assert spec.min_lr is not None
    if step >= total:
        return spec.min_lr
    return spec.min_lr + (spec.lr - spec.min_lr) * (1 + math.cos(math.pi * step / total)) / 2
