"""The LightningModule of a run, as it is to compute on its device."""

from __future__ import annotations

import torch
from torch import nn

from metaformer_ablate.models.memory_format import laid_out
from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.trainer import has_batch_norm
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.base import TaskData
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.tasks.registry import task_of
from metaformer_ablate.training.compute import ComputeSettings, checkpoint_activations


def build_module(
    spec: RunSpec, data: TaskData, computing: ComputeSettings, device: torch.device, net: nn.Module | None = None
) -> tuple[TaskModule, bool]:
    """The module that the task makes of a run, and whether its net has batch norm.

    With a `net` it is that net that is trained. Raises RequestError where the run cannot be carried out on the device,
    ModelRefused where its model holds components of the user's own and cannot be built or run there.
    """
    train, task = spec.train, task_of(spec)
    if net is None:
        net = task.part("net").build_net(spec, kernels=computing.kernels, device=device)
    batch_norm = has_batch_norm(net, train)
    check_hardware(spec, device.type, batch_norm)
    if train.grad_checkpointing:
        checkpoint_activations(net)
    module: TaskModule = task.part("module").build_module(spec, laid_out(net, train.memory_format), data)
    if computing.compiled:
        module.compile_nets()
    return module, batch_norm
