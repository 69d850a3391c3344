"""Settings of training, and which of them a schedule reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from metaformer_ablate.settings.schema import (
    AboveZero,
    NotNegative,
    Pair,
    Positive,
    Probability,
    Stages,
    Strict,
    execution_setting,
    later_setting,
    name_in,
    setting,
)
from metaformer_ablate.training.optimizers import find_optimizer


def _plain(value: Any) -> Any:
    """A list as a tuple, and -0.0 as 0.0; whole numbers stay whole, for some arguments have to be."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return value + 0.0 if isinstance(value, float) else value


# A value of `optimizer_args`.
Argument = Annotated[bool | int | float | str | tuple[float, ...] | None, BeforeValidator(_plain)]


SCHEDULES = ("cosine", "constant", "step", "poly")


class TrainSpec(Strict):
    """Optimiser, schedule and what of the machine can change a result."""

    epochs: Positive | None = setting(300, "an integer of at least 1")
    steps: Positive | None = later_setting("an integer of at least 1: optimiser steps, in place of train.epochs")
    batch_size: Annotated[int, Field(ge=2)] = setting(1024, "an integer of at least 2: images per step in all")
    # Which names there are depends on the installed timm: `spec.checks` asks, a record is read with any.
    optimizer: str = setting(
        "adamw", "adamw, or another optimiser of timm by name, such as sgd, momentum, lamb or lion"
    )
    optimizer_args: Annotated[dict[str, Argument], AfterValidator(lambda args: args or None)] | None = later_setting(
        "a mapping of what else the optimiser reads, such as {momentum: 0.9}, or null for its own"
    )
    lr: AboveZero = setting(1e-3, "a number above 0: the peak learning rate")
    weight_decay: NotNegative = setting(0.05, "a number of at least 0")
    decay_on: Annotated[str, name_in("choice", ("all", "matrices"))] | None = later_setting(
        "all (norms, biases and scales too), matrices (all of two dimensions or more), or null for matrices but those "
        "that the model exempts"
    )
    betas: Pair[Probability] | None = setting((0.9, 0.999), "two numbers of at least 0 and below 1")
    eps: AboveZero | None = setting(1e-8, "a number above 0")
    schedule: Annotated[str, name_in("schedule", SCHEDULES)] = setting("cosine", "cosine, constant, step or poly")
    milestones: Stages[Positive] | None = later_setting(
        "a list of rising integers of at least 1: the epochs (with train.steps the steps) after which the learning "
        "rate is multiplied by gamma"
    )
    gamma: AboveZero | None = later_setting(
        "a number above 0: what a milestone multiplies the learning rate by; null for 0.1"
    )
    power: AboveZero | None = later_setting("a number above 0: the exponent of the poly schedule; null for 0.9")
    schedule_unit: Annotated[str, name_in("unit", ("step", "epoch"))] = setting("step", "step or epoch")
    warmup_epochs: NotNegative | None = setting(5.0, "a number of at least 0")
    warmup_steps: Annotated[int, Field(ge=0, lt=2**31)] | None = later_setting(
        "an integer of at least 0: steps of warm-up, in place of train.warmup_epochs"
    )
    warmup_lr: NotNegative | None = setting(1e-6, "a number of at least 0: the learning rate that warm-up begins with")
    min_lr: NotNegative | None = setting(1e-5, "a number of at least 0: the learning rate that the schedule ends with")
    cooldown_epochs: Annotated[int, Field(ge=0)] = setting(
        0, "an integer of at least 0: epochs at the last learning rate after the schedule"
    )
    label_smoothing: Probability = setting(0.0, "a number of at least 0 and below 1")
    class_weights: Annotated[str, name_in("weighting", ("balanced",))] | None = later_setting(
        "balanced (the loss of a rare class weighs more: images / (classes x images of the class)), or null"
    )
    clip_grad: AboveZero | None = setting(None, "a number above 0: the largest norm of the gradient, or null for none")
    ema: Probability | None = setting(
        None,
        "a number of at least 0 and below 1: decay per step of averaged weights, which are evaluated; null for none",
    )
    precision: Annotated[str, name_in("precision", ("fp32", "bf16", "auto"))] = setting(
        "fp32", "fp32, bf16 or auto (bf16 on GPUs that have it, fp32 elsewhere)"
    )
    memory_format: Annotated[str, name_in("memory format", ("contiguous", "channels_last"))] = setting(
        "channels_last", "contiguous or channels_last"
    )
    compile: bool | Annotated[str, name_in("way to compile", ("auto",))] = setting(
        False, "true, false or auto (on GPUs, not on a CPU)"
    )
    kernels: Annotated[str, name_in("kind of kernels", ("torch", "triton", "auto"))] = setting(
        "torch", "torch, triton (fused norm and pooling) or auto (triton on GPUs that have it)"
    )
    threads: Annotated[int, Field(ge=1, le=256)] = setting(1, "an integer from 1 to 256: CPU threads of the run")
    # Where the batch is computed. Whatever these say, a step takes `batch_size` images in all.
    devices: Positive = execution_setting(1, "an integer of at least 1: devices of a node that share each batch")
    nodes: Positive = execution_setting(1, "an integer of at least 1: machines that share each batch")
    strategy: Annotated[str, name_in("strategy", ("auto", "ddp", "fsdp"))] = execution_setting(
        "auto", "auto (ddp on more than one device), ddp or fsdp"
    )
    micro_batch: Positive | None = execution_setting(
        None, "an integer of at least 1, images that a device takes at once, or null for all of its share"
    )
    grad_checkpointing: bool = execution_setting(
        False, "true or false: compute each block's activations once more in the backward pass, to save memory"
    )

    @property
    def has_warmup(self) -> bool:
        return bool(self.warmup_epochs if self.warmup_steps is None else self.warmup_steps)

    def schedule_steps(self, steps_per_epoch: int) -> int:
        """Steps that the schedule takes: all but those of the cool-down."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * steps_per_epoch

    def all_steps(self, steps_per_epoch: int) -> int:
        """Steps of a run."""
        return self.schedule_steps(steps_per_epoch) + self.cooldown_epochs * steps_per_epoch

    def all_epochs(self, steps_per_epoch: int) -> int:
        """Epochs of a run: evaluations, and lines of its history. With `steps` the last one may be a short one."""
        if self.steps is not None:
            return -(-self.steps // steps_per_epoch)
        assert self.epochs is not None
        return self.epochs + self.cooldown_epochs

    @property
    def world(self) -> int:
        """Devices on all nodes together."""
        return self.devices * self.nodes

    @property
    def accumulation(self) -> int:
        """Micro-batches that a device takes one after another of its share of a batch."""
        share = self.batch_size // self.world
        return share // (self.micro_batch or share)


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run with those that follow from its optimiser and its schedule and are not set."""
    found = dict(values)
    optimizer = find_optimizer(found["optimizer"]) if isinstance(found.get("optimizer"), str) else None
    if optimizer is not None:
        found = {"betas": optimizer.betas, "eps": optimizer.eps} | found
    own = {"step": ("gamma", 0.1), "poly": ("power", 0.9)}
    if (schedule := found.get("schedule")) in ("step", "poly"):
        name, value = own[schedule]
        if found.get(name) is None:
            found[name] = value
    return found


def unread_train(train: TrainSpec) -> dict[str, str]:
    """{field: why nothing reads it}."""
    unread_fields: dict[str, str] = {}
    schedule = f"the schedule is {train.schedule}"
    of_schedules = {"min_lr": ("cosine", "poly"), "milestones": ("step",), "gamma": ("step",), "power": ("poly",)}
    unread_fields |= {field: schedule for field, names in of_schedules.items() if train.schedule not in names}
    if train.steps is not None:
        unread_fields |= dict.fromkeys(("epochs", "cooldown_epochs"), f"train.steps is {train.steps}")
    if train.warmup_steps is not None:
        unread_fields["warmup_epochs"] = f"train.warmup_steps is {train.warmup_steps}"
    if not train.has_warmup:
        unread_fields["warmup_lr"] = "warmup_epochs is 0" if train.warmup_steps is None else "warmup_steps is 0"
    if train.weight_decay == 0:
        unread_fields["decay_on"] = "weight_decay is 0"
    if (optimizer := find_optimizer(train.optimizer)) is not None:
        own = {"betas": optimizer.betas, "eps": optimizer.eps}
        unread_fields |= {name: f"the optimizer is {train.optimizer}" for name, value in own.items() if value is None}
    return unread_fields
