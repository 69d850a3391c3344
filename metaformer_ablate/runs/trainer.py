"""Lightning's Trainer for a run: devices, strategy, batch norm."""

from __future__ import annotations

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.norms import BatchNorm
from metaformer_ablate.training.spec import TrainSpec


def has_batch_norm(net: nn.Module, train: TrainSpec) -> bool:
    """Raises RequestError where several devices could not synchronise it without changing what it computes."""
    kinds = {type(module) for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
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
