"""Lightning's Trainer for a run: devices, strategy, batch norm."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.freezing import trained_batch_norms
from metaformer_ablate.models.norms import BatchNorm
from metaformer_ablate.runs.callback import RunCallback
from metaformer_ablate.training.compute import ComputeSettings
from metaformer_ablate.training.spec import TrainSpec


def make_trainer(
    train: TrainSpec,
    devices: Sequence[torch.device],
    computing: ComputeSettings,
    callback: RunCallback,
    batch_norm: bool,
) -> pl.Trainer:
    """The Trainer of a run on the devices of this machine: it keeps no log and no checkpoint, which the callback does.

    `batch_norm`: the net has some, which several devices synchronise.
    """
    trainer = pl.Trainer(
        **trainer_arguments(train, devices, computing, batch_norm),
        max_epochs=callback.epochs,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[cluster_environment(train)],
    )
    leave_signals_alone(trainer)
    return trainer


def trainer_arguments(
    train: TrainSpec, devices: Sequence[torch.device], computing: ComputeSettings, batch_norm: bool
) -> dict[str, Any]:
    """Those arguments of a Trainer that a run's numbers depend on, but for its length."""
    gpu = devices[0].type == "cuda"
    return {
        "accelerator": "gpu" if gpu else "cpu",
        "devices": [d.index or 0 for d in devices] if gpu else len(devices),
        "num_nodes": train.nodes,
        "strategy": choose_strategy(train),
        "accumulate_grad_batches": train.accumulation,
        "sync_batchnorm": batch_norm and train.world > 1,
        "use_distributed_sampler": False,  # the task takes its part of each batch
        "precision": "bf16-mixed" if computing.precision == "bf16" else "32-true",
        "gradient_clip_val": train.clip_grad,
        "num_sanity_val_steps": 0,
    }


def leave_signals_alone(trainer: pl.Trainer) -> None:
    """Keeps Lightning from handling signals, for which it has no setting (private: tests/runs/test_resume.py tells).

    Its handler of SIGTERM ends a run at its next step by SystemExit, whose code is 0, and its place is lost; in a
    signal's handler it also speaks to the other devices. The options' stop is for that.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without what Lightning says of how these runs are trained on purpose."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The loaders need no workers where their batches are views of tensors in memory.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A loader that begins where the checkpoint ended is what this one wants.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        # What is frozen, and batch norms that keep their statistics.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # What is logged is of all devices already.
        warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield


def has_batch_norm(net: nn.Module, train: TrainSpec) -> bool:
    """Whether statistics follow the batches. Raises RequestError where several devices could not synchronise them
    without changing what the net computes."""
    kinds = {type(module) for module in trained_batch_norms(net.modules())}
    # torch puts its own class in their place; timm has some that do more, such as an activation.
    if train.world > 1 and (odd := kinds - {nn.BatchNorm1d, nn.BatchNorm2d, BatchNorm}):
        names = ", ".join(sorted(kind.__name__ for kind in odd))
        raise RequestError(
            f"the model has {names}, which {train.world} devices cannot synchronise; allowed: one device"
        )
    return bool(kinds)


def cluster_environment(train: TrainSpec) -> ClusterEnvironment:
    if train.nodes > 1:
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()  # not Slurm's, which would requeue the job by itself


def choose_strategy(train: TrainSpec) -> Strategy | str:
    if train.world == 1:
        return "auto"
    if train.strategy == "fsdp":
        from torch.distributed.fsdp import MixedPrecision

        # The shards stay in fp32; bf16 is autocast's, as everywhere, or a run would compute otherwise under fsdp.
        full = MixedPrecision(torch.float32, torch.float32, torch.float32)
        return FSDPStrategy(state_dict_type="full", mixed_precision=full)
    return DDPStrategy()
