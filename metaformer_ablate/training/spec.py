"""Settings of training, and which of them a schedule reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metaformer_ablate.settings.schema import (
    AboveZero,
    NotNegative,
    Pair,
    Positive,
    Probability,
    Strict,
    execution_setting,
    name_in,
    setting,
)


class TrainSpec(Strict):
    """Optimiser, schedule and what of the machine can change a result."""

    epochs: Positive = setting(300, "an integer of at least 1")
    batch_size: Annotated[int, Field(ge=2)] = setting(1024, "an integer of at least 2: images per step in all")
    optimizer: Annotated[str, name_in("optimizer", ("adamw",))] = setting("adamw", "adamw")
    lr: AboveZero = setting(1e-3, "a number above 0: the peak learning rate")
    weight_decay: NotNegative = setting(0.05, "a number of at least 0")
    betas: Pair[Probability] = setting((0.9, 0.999), "two numbers of at least 0 and below 1")
    eps: AboveZero = setting(1e-8, "a number above 0")
    schedule: Annotated[str, name_in("schedule", ("cosine", "constant"))] = setting("cosine", "cosine or constant")
    schedule_unit: Annotated[str, name_in("unit", ("step", "epoch"))] = setting("step", "step or epoch")
    warmup_epochs: NotNegative = setting(5.0, "a number of at least 0")
    warmup_lr: NotNegative | None = setting(1e-6, "a number of at least 0: the learning rate that warm-up begins with")
    min_lr: NotNegative | None = setting(1e-5, "a number of at least 0: the learning rate that the cosine ends with")
    cooldown_epochs: Annotated[int, Field(ge=0)] = setting(
        0, "an integer of at least 0: epochs at min_lr after the cosine"
    )
    label_smoothing: Probability = setting(0.0, "a number of at least 0 and below 1")
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
    def world(self) -> int:
        """Devices on all nodes together."""
        return self.devices * self.nodes

    @property
    def accumulation(self) -> int:
        """Micro-batches that a device takes one after another of its share of a batch."""
        share = self.batch_size // self.world
        return share // (self.micro_batch or share)


def unread_train(train: TrainSpec) -> dict[str, str]:
    unread_fields = {}
    if train.schedule == "constant":
        unread_fields["min_lr"] = "the schedule is constant"
    if not train.warmup_epochs:
        unread_fields["warmup_lr"] = "warmup_epochs is 0"
    return unread_fields
