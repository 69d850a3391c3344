"""A trained net that is asked again: what all tasks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from metaformer_ablate.models.memory_format import laid_out
from metaformer_ablate.tasks.base import RecordedRun, RunSections

CHECKED = 16  # images, evenly spaced, by which weights are held to a record


@dataclass(frozen=True)
class TrainedNet:
    """A trained net in evaluation mode, on its device and in the memory format of its run."""

    run: RecordedRun
    spec: RunSections
    net: nn.Module
    device: torch.device
    bf16: bool = False  # whether it was trained and evaluated in it

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """Computes as in training: threads, precision; without gradients."""
        torch.set_num_threads(self.spec.train.threads)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, self.bf16):
            yield


def made_ready(net: nn.Module, spec: RunSections, device: torch.device) -> nn.Module:
    """A net with its trained weights, on a device, to be asked."""
    return laid_out(net, spec.train.memory_format).to(device).eval()


def evenly_spaced(number: int) -> list[int]:
    """At most CHECKED of so many images."""
    return np.unique(np.linspace(0, number - 1, min(CHECKED, number)).astype(int)).tolist()
