"""How a run is computed on its device: what `auto` comes to there, torch.compile, gradient checkpointing.

What a compiled run promises: the masks of stochastic depth and dropout are those of the plain run, for they are drawn
by torch's own generators (`fallback_random`), which each step seeds, so a run that is resumed draws as one that was not
disturbed. Outputs and gradients equal the plain ones to rounding: operators are fused. A run that is resumed ends bit
for bit as one that was not disturbed where the compiler makes the same code of it: tested on a CPU, not on a GPU.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.cpu_ops import cpu_operators
from metaformer_ablate.models.own_checks import Conditions
from metaformer_ablate.system.cache import cache_dir
from metaformer_ablate.training.spec import TrainSpec


@dataclass(frozen=True)
class ComputeSettings:
    """What `precision`, `compile` and `kernels` of a spec come to: fp32 or bf16, whether compiled, torch or triton.

    And what a CPU computes with (`cpu_operators`), which its name does not tell; None on a GPU.
    """

    precision: str
    compiled: bool
    kernels: str
    cpu: dict[str, str] | None = None

    @classmethod
    def on(cls, device: torch.device, train: TrainSpec) -> ComputeSettings:
        """Raises RequestError for kernels that the device cannot run."""
        gpu = device.type == "cuda"
        precision, kernels = _precision(device, train), train.kernels
        if kernels == "auto":
            kernels = "triton" if _has_triton(device) else "torch"
        if kernels == "triton" and not _has_triton(device):
            raise RequestError("train.kernels is 'triton', which needs a GPU with Triton; allowed here: torch, auto")
        compiled = gpu if train.compile == "auto" else bool(train.compile)
        return cls(precision, compiled, kernels, None if gpu else cpu_operators())

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def conditions(train: TrainSpec, device: torch.device | None) -> Conditions | None:
    """What components of the user's own are tried under on a device, before a training; None without one."""
    if device is None:
        return None
    return Conditions(train.memory_format, _precision(device, train) == "bf16", device)


def _precision(device: torch.device, train: TrainSpec) -> str:
    if train.precision != "auto":
        return train.precision
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def _has_triton(device: torch.device) -> bool:
    """Whether the fused kernels, where this version has them, run on a device."""
    names = ("metaformer_ablate.models.kernels", "triton")
    return device.type == "cuda" and all(find_spec(name) is not None for name in names)


def compile_in_place(*nets: nn.Module) -> None:
    """Has each net compiled when it is first called with inputs of a shape: the batch's shape must not vary.

    What is compiled is kept in the user's cache folder, in a folder for each version of torch, and shared by all
    processes. What this process compiled for nets before is dropped, which would count against a limit of torch's.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "compiled" / f"torch-{torch.__version__}"))
    torch.compiler.reset()
    for net in nets:
        net.compile(dynamic=False, options={"fallback_random": True})


@contextmanager
def repeatable(gpu: bool) -> Iterator[set[str]]:
    """On a GPU, has each operator give the same bits each time; yields the names of those met that cannot.

    On a CPU operators do so by themselves. What cannot goes on: a run says in its record which they were.
    """
    found: set[str] = set()
    if not gpu:
        yield found
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads what it has not written
    torch.use_deterministic_algorithms(True, warn_only=True)
    show = warnings.showwarning

    def note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if (said := re.match(r"(\S+) does not have a deterministic implementation", str(message))) is not None:
            found.add(said[1])
        else:
            show(message, category, *where, **more)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", message=".*does not have a deterministic implementation.*")
            warnings.showwarning = note
            yield found
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def is_compile_error(error: Exception) -> bool:
    """Whether it is the compiler that failed; not what a compiled net itself raises."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))


def checkpoint_activations(net: nn.Module) -> None:
    """Has the blocks of a net computed once more in the backward pass, instead of keeping their activations.

    Raises RequestError for a comparator that cannot do that.
    """
    try:
        net.set_grad_checkpointing(True)  # type: ignore[operator]  # our name and timm's
    except (AttributeError, AssertionError, NotImplementedError):  # timm's models that cannot assert that nobody asks
        raise RequestError(
            f"train.grad_checkpointing is true, which {type(net).__name__} cannot do; allowed: false"
        ) from None
