"""Whether this hardware can carry a run out."""

from __future__ import annotations

import os

from metaformer_ablate.errors import RequestError
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.training.spec import TrainSpec


def check_hardware(spec: RunSpec, device: str, batch_norm: bool | None = None) -> None:
    """Raises RequestError where a run cannot be carried out, or shared, by devices of a kind: cpu or cuda.

    Whether its model has batch norm is seen from the spec, unless given: a comparator's is seen once it is built.
    """
    train = spec.train
    if batch_norm is None:
        convs = (spec.model.stem, spec.model.downsample)
        used = "batch_norm" in (spec.model.norm, *(conv.norm for conv in convs if conv))
        batch_norm = used and not spec.model.batch_norm_eval
    if train.kernels == "triton" and device == "cpu":
        raise RequestError("train.kernels is 'triton', which needs a GPU with Triton; allowed on a CPU: torch, auto")
    if train.strategy == "fsdp" and device == "cpu":
        raise RequestError("train.strategy is 'fsdp', which needs GPUs; allowed on a CPU: auto, ddp")
    if train.strategy == "fsdp" and train.clip_grad is not None:
        raise RequestError(
            f"train.clip_grad is {train.clip_grad:g} and train.strategy is 'fsdp', under which Lightning cannot take "
            f"the norm of the whole gradient; allowed: train.strategy=ddp"
        )
    if train.strategy == "fsdp" and train.ema is not None:
        raise RequestError(
            f"train.ema is {train.ema:g} and train.strategy is 'fsdp', which has the weights in pieces; allowed: "
            f"train.strategy=ddp"
        )
    if train.strategy == "fsdp" and train.optimizer != "adamw":
        raise RequestError(
            f"train.optimizer is {train.optimizer} and train.strategy is 'fsdp', which has the weights in pieces that "
            f"not every optimiser may be given; allowed: train.optimizer=adamw, or train.strategy=ddp"
        )
    if not batch_norm:
        return
    if train.grad_checkpointing:
        raise RequestError(
            f"train.grad_checkpointing is true, but the model of run {spec.run_id} has batch norm, whose running "
            f"statistics would follow each batch twice; allowed: false"
        )
    if train.accumulation > 1:
        raise RequestError(
            f"train.micro_batch is {train.micro_batch}, but the model of run {spec.run_id} has batch norm, whose "
            f"statistics would be those of {train.micro_batch} images; allowed: null"
        )
    if train.world > 1 and device == "cpu":
        raise RequestError(
            f"the model of run {spec.run_id} has batch norm, which {train.world} devices have to synchronise, and "
            f"torch does that on GPUs only; allowed on a CPU: train.devices=1 train.nodes=1"
        )


def check_launch(train: TrainSpec) -> None:
    """Raises RequestError where this process cannot start the ranks of a run."""
    if train.nodes == 1:
        return
    nodes = os.environ.get("SLURM_NNODES") if "SLURM_JOB_ID" in os.environ else None
    if nodes is None:
        raise RequestError(f"train.nodes is {train.nodes}; more than one node needs --launcher slurm")
    if int(nodes) < train.nodes:
        raise RequestError(f"train.nodes is {train.nodes}, but the Slurm job has {nodes} nodes")
