"""The LightningModule of a run, as it is to compute on its device."""

from __future__ import annotations

import torch
from torch import nn

from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.trainer import has_batch_norm
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.base import TaskData
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.tasks.registry import task_of
from metaformer_ablate.training.compute import ComputeSettings, checkpoint_activations


def build_module(
    spec: RunSpec, data: TaskData, computing: ComputeSettings, device: str, net: nn.Module | None = None
) -> tuple[TaskModule, bool]:
    """The module that the task makes of a run, and whether its net has batch norm. `device` is cpu or cuda.

    With a `net` it is that net that is trained. Raises RequestError where the run cannot be carried out on the device.
    """
    train, task = spec.train, task_of(spec)
    if net is None:
        net = task.part("net").build_net(spec, kernels=computing.kernels)
    batch_norm = has_batch_norm(net, train)
    check_hardware(spec, device, batch_norm)
    if train.grad_checkpointing:
        checkpoint_activations(net)
    if train.memory_format == "channels_last":
        net = net.to(memory_format=torch.channels_last)
    module: TaskModule = task.part("module").build_module(spec, net, data)
    if computing.compiled:
        module.compile_nets()
    return module, batch_norm
