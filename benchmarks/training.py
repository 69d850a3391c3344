"""A training step and inference, side by side: ours as `ablate run` trains it, timm's model as timm's script trains it,
timm's model in our memory format with our optimizer, and the authors' code.

The sides have the same depths, widths, geometry, images and threads. Each is a process of its own, for what a process
keeps (memory, compiled code) is part of a side; all live at once and are timed in turns, so that whatever else the
machine does meets each of them. A step is forward, loss, backward and optimizer; the batch lies on the device.

The authors' code is measured where $POOLFORMER_CODE names a checkout of github.com/sail-sg/poolformer.
"""

from __future__ import annotations

import contextlib
import functools
import io
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from typing import Any

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.system.memory import peak_memory, start_peak_memory

AUTHORS_CODE = "POOLFORMER_CODE"


@dataclass(frozen=True)
class Setting:
    """Where and how a side is measured. One thread on a CPU."""

    device: str = "cpu"
    precision: str = "fp32"
    compiled: bool = False


@dataclass(frozen=True)
class Case:
    """A model under a recipe, with its resolution, and images a batch."""

    size: str
    recipe: str
    batch: int

    def spec(self, setting: Setting = Setting()) -> RunSpec:
        over: dict[str, Any] = {"model.size": self.size, "train.batch_size": self.batch, "train.threads": 1}
        over |= {"train.precision": setting.precision, "train.compile": setting.compiled}
        return resolve([load_recipe(self.recipe).layer, Layer(over, lambda path: "benchmark")], 0)


CPU_CASES = (Case("t5", "fashion_mnist", 128), Case("t12", "cifar10", 64), Case("s12", "imagenet", 16))
GPU_CASES = (Case("t5", "fashion_mnist", 128), Case("t12", "cifar10", 512), Case("s12", "imagenet", 256))


def training(**how: Any) -> list[dict[str, object]]:
    """`measure` of training steps."""
    return measure("training", **how)


def inference(**how: Any) -> list[dict[str, object]]:
    """`measure` of inference."""
    return measure("inference", **how)


def measure(
    work: str,
    cases: Sequence[tuple[Case, Setting]] | None = None,
    rounds: int = 7,
    seconds: float = 0.5,
) -> list[dict[str, object]]:
    """Milliseconds a batch of each side, how many times ours it takes (median over rounds), and peak memory.

    On a CPU the time is that of the processor, which others on the machine do not lengthen. A round is at least
    `seconds` of each side. Memory is what a process grew by from before its model was built to its largest, on a GPU
    what the allocator gave out at most.
    """
    lines: list[dict[str, object]] = []
    for case, setting in cases or _cases():
        with contextlib.ExitStack() as stack:
            sides = {
                name: stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
                for name in SIDES
                if name != "authors" or os.environ.get(AUTHORS_CODE)
            }
            begun = [pool.submit(_begin, name, case, setting, work) for name, pool in sides.items()]
            steps = [max(1, round(seconds / begin.result())) for begin in begun]
            times: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(rounds):
                for (name, pool), count in zip(sides.items(), steps, strict=True):
                    times[name].append(pool.submit(_time, count).result())
            memory = {name: pool.submit(_memory).result() for name, pool in sides.items()}
        spec = case.spec(setting)
        about: dict[str, object] = {
            "benchmark": work,
            "case": f"{case.size} at {spec.data.image_size} x {spec.data.image_size} ({case.recipe})",
            "batch": case.batch,
            "device": _name(setting.device),
            "precision": setting.precision,
            "compiled": setting.compiled,
        }
        for name, (_, meaning) in SIDES.items():
            if name not in times:
                lines.append(about | {"side": meaning, "ms": f"not measured: {AUTHORS_CODE} is not set"})
                continue
            ratio = median(theirs / ours for theirs, ours in zip(times[name], times["ours"], strict=True))
            figures = {"ms": round(1e3 * median(times[name]), 3), "times_ours": round(ratio, 2)}
            lines.append(about | {"side": meaning} | figures | {"peak_mib": memory[name]})
    return lines


def _cases() -> list[tuple[Case, Setting]]:
    import torch

    chosen = [(case, Setting()) for case in CPU_CASES]
    if torch.cuda.is_available():
        ways = [Setting("cuda", precision, compiled) for precision in ("fp32", "bf16") for compiled in (False, True)]
        chosen += [(case, setting) for case in GPU_CASES for setting in ways]
    return chosen


def _name(device: str) -> str:
    import torch

    return device_name(torch.device(device))


# ---------------------------------------------------------------------------------------------------------------------
# The sides. Each gives a net and its optimizer on the CPU, to be moved by the caller, and a loss.


@dataclass(frozen=True)
class Side:
    """A net as it is trained somewhere: `optimizer` is called once the net lies on its device."""

    net: Any
    optimizer: Callable[[], Any]
    loss: Callable[[Any, Any], Any]
    channels_last: bool


def ours(spec: RunSpec, kernels: str = "torch") -> Side:
    from torch.nn import functional as F

    from metaformer_ablate.models.build import build_model
    from metaformer_ablate.tasks.classification.data.augment import Augment
    from metaformer_ablate.tasks.classification.module import Classification

    channels = DATASETS[spec.data.name].channels
    augment = Augment(spec.data, spec.data.classes, (0.5,) * channels, (0.25,) * channels, spec.train.memory_format)
    net = build_model(spec.model, *spec.data.net_shape, seed=spec.seed, kernels=kernels)
    task = Classification(net, spec.train, augment, steps_per_epoch=1, seed=0)
    return Side(
        task.net,
        lambda: task.configure_optimizers()["optimizer"],
        functools.partial(F.cross_entropy, label_smoothing=spec.train.label_smoothing),
        spec.train.memory_format == "channels_last",
    )


def timm_net(spec: RunSpec) -> Any:
    """timm's MetaFormer as the spec says, for a PoolFormer; its stem and down-samplings have one geometry, so ours
    take their place."""
    from timm.models import metaformer
    from torch import nn

    model, stem, down = spec.model, spec.model.stem, spec.model.downsample
    assert model.depths and model.dims and stem and down
    channels = DATASETS[spec.data.name].channels
    net = metaformer.MetaFormer(
        in_chans=channels,
        num_classes=spec.data.classes,
        depths=model.depths,
        dims=model.dims,
        token_mixers=metaformer.Pooling,
        mlp_act=nn.GELU,
        mlp_bias=True,
        drop_path_rate=model.drop_path or 0.0,
        layer_scale_init_values=model.layer_scale,
        res_scale_init_values=None,  # type: ignore[arg-type]
        downsample_norm=None,
        norm_layers=metaformer.GroupNorm1,
        use_mlp_head=False,
    )
    net.stem.conv = nn.Conv2d(channels, model.dims[0], stem.kernel, stride=stem.stride, padding=stem.padding)
    for stage, before, after in zip(net.stages[1:], model.dims, model.dims[1:], strict=False):
        stage.downsample.conv = nn.Conv2d(before, after, down.kernel, stride=down.stride, padding=down.padding)
    return net


def authors_net(spec: RunSpec) -> Any:
    """The authors' PoolFormer, out of their checkout, as the spec says; it takes colour images alone, so the first
    convolution of ours takes the place of theirs.
    """
    import timm.layers
    import timm.models._registry
    from torch import nn

    sys.modules["timm.models.layers"] = timm.layers  # where their timm had them
    sys.modules["timm.models.layers.helpers"] = timm.layers.helpers
    sys.modules["timm.models.registry"] = timm.models._registry
    path = Path(os.environ[AUTHORS_CODE]) / "models" / "poolformer.py"
    found = spec_from_file_location("authors_poolformer", path)
    assert found and found.loader
    module = sys.modules["authors_poolformer"] = module_from_spec(found)
    # It tells of packages that it can do without, and of its names that timm has too.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.loader.exec_module(module)
    model, stem = spec.model, spec.model.stem
    assert model.depths and model.dims and stem
    net = module.PoolFormer(
        model.depths,
        embed_dims=model.dims,
        mlp_ratios=(4, 4, 4, 4),
        downsamples=(True, True, True, True),
        num_classes=spec.data.classes,
        drop_path_rate=model.drop_path or 0.0,
        layer_scale_init_value=model.layer_scale,
    )
    channels = DATASETS[spec.data.name].channels
    net.patch_embed.proj = nn.Conv2d(channels, model.dims[0], stem.kernel, stride=stem.stride, padding=stem.padding)
    return net


def _as_timm_trains(net: Callable[[RunSpec], Any], channels_last: bool, spec: RunSpec, **options: Any) -> Side:
    """As timm's script, and the authors' which is an older one of it, sets the training up."""
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    built = net(spec)
    train = spec.train
    return Side(
        built,
        lambda: create_optimizer_v2(
            built, opt="adamw", lr=train.lr, weight_decay=train.weight_decay, betas=train.betas, **options
        ),
        LabelSmoothingCrossEntropy(spec.train.label_smoothing),
        channels_last,
    )


SIDES: dict[str, tuple[Callable[[RunSpec], Side], str]] = {
    "ours": (ours, "ours"),
    "timm": (functools.partial(_as_timm_trains, timm_net, False), "timm as its script has it"),
    "timm_like_ours": (
        functools.partial(_as_timm_trains, timm_net, True, fused=True),
        "timm in channels_last with fused AdamW",
    ),
    "authors": (functools.partial(_as_timm_trains, authors_net, False), "the authors' code"),
}


# ---------------------------------------------------------------------------------------------------------------------
# In the process of a side


@dataclass
class _State:
    """What a process measures."""

    step: Callable[[], None]
    device: Any
    memory_before: int | None


_state: _State


def _begin(name: str, case: Case, setting: Setting, work: str) -> float:
    """Builds a side and warms it up; the seconds that a batch takes."""
    import torch

    from metaformer_ablate.system.memory import retain_freed_memory

    global _state
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = torch.device(setting.device)
    if name == "ours" and device.type == "cpu":
        retain_freed_memory()
    before = start_peak_memory(device)
    spec = case.spec(setting)
    _state = _State(step_of(SIDES[name][0](spec), spec, setting, work), device, before)
    _time(3)
    return _time(2)


def step_of(side: Side, spec: RunSpec, setting: Setting, work: str) -> Callable[[], None]:
    """One batch through a side: `training` or `inference`, images and labels at random but always the same."""
    import torch

    device = torch.device(setting.device)
    channels, size, batch = DATASETS[spec.data.name].channels, spec.data.image_size, spec.train.batch_size
    images = torch.randn(batch, channels, size, size, device=device)
    labels = torch.randint(0, spec.data.classes, (batch,), device=device)
    net = side.net.to(device)
    if side.channels_last:
        net, images = (x.to(memory_format=torch.channels_last) for x in (net, images))
    if setting.compiled:
        net.compile()
    autocast = functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=setting.precision == "bf16")

    if work == "inference":
        net.eval()

        def infer() -> None:
            with torch.inference_mode(), autocast():
                net(images)

        return infer

    net.train()
    optimizer = side.optimizer()

    def train() -> None:
        optimizer.zero_grad()
        with autocast():
            loss = side.loss(net(images), labels)
        loss.backward()
        optimizer.step()

    return train


def _time(count: int) -> float:
    """Seconds a batch, over `count` of them: of the processor on a CPU, of the clock on a GPU."""
    import torch

    if _state.device.type == "cpu":
        clock, wait = time.process_time, _nothing
    else:
        clock, wait = time.perf_counter, torch.cuda.synchronize
    wait()
    start = clock()
    for _ in range(count):
        _state.step()
    wait()
    return (clock() - start) / count


def _nothing() -> None:
    """A CPU is done when a call returns."""


def _memory() -> int | None:
    """MiB, see `measure`."""
    peak = peak_memory(_state.device)
    if peak is None or _state.memory_before is None:
        return None
    return round((peak - _state.memory_before) / 2**20)
