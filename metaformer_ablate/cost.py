"""What a model costs: parameters, multiply-adds and what was not counted; speed and memory on this machine.

Multiply-adds (MACs) are fvcore's "flops" of one image, as in the paper's third version: convolutions, linear layers
and matrix products (attention too, by a handler of ours), GroupNorm at 5 an element and BatchNorm at 2. Not counted:
pooling, element-wise operators, and the norms that the authors write out of element-wise operators: LayerNorm, and any
norm without a bias (MetaFormer Baselines); in timm's models every norm is counted, as fvcore does by itself. Pooling
multiplies nothing, so its additions and bytes stand by themselves.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer_ablate.data.catalogue import DATASETS
from metaformer_ablate.data.files import cache_folder, write_quietly
from metaformer_ablate.models.own_parts import TABLES
from metaformer_ablate.models.parts import MIXERS
from metaformer_ablate.spec import RunSpec, digest, not_applicable, stage_sizes
from metaformer_ablate.yaml_reader import RequestError

if TYPE_CHECKING:
    import torch
    from torch import nn

# Raised whenever the same model would be counted differently; counts in the cache are of one version.
COUNTING = 3

# Operators that may stay uncounted: they move or combine elements and multiply no matrices. Any other operator that
# fvcore does not know is an error, so that a new mixer cannot hide its cost.
DECLARED_UNCOUNTED = frozenset(
    "aten::" + name
    for line in (
        "add add_ sub rsub neg mul mul_ div pow square sqrt rsqrt mean sum addcmul",
        "gelu silu sigmoid relu softmax layer_norm rms_norm group_norm batch_norm",
        "avg_pool2d max_pool2d max_pool2d_with_indices adaptive_avg_pool1d avg_pool1d",
        "pad repeat clone ones_like new_ones expand_as lift_fresh fft_fftn real",
    )
    for name in line.split()
)


class UncountedOperator(RequestError):
    """A model uses an operator that is neither counted nor declared as uncounted."""


@dataclass(frozen=True)
class Cost:
    """Counts of one model for one image. `params` are trained, `frozen_params` are not.

    `layer_scale_params` are those of `params` that the paper's table 1 leaves out, and table 1 alone. `activations` are
    the elements that convolutions, linear layers, matrix products and attention put out (arXiv 2003.13678).
    """

    params: int
    layer_scale_params: int
    frozen_params: int
    macs: int
    macs_by_operator: dict[str, int]
    uncounted: dict[str, int]  # operator: calls
    activations: int
    pooling_additions: int
    pooling_bytes: int


def count(spec: RunSpec, image_size: int | None = None) -> Cost:
    """Counts the model of a spec at its own resolution or at `image_size` pixels. Remembered by what it depends on."""
    if (known := remembered(spec, image_size)) is not None:
        return known
    from metaformer_ablate.models.build import build_model

    size = image_size or spec.data.image_size
    image = (DATASETS[spec.data.name].channels, size, size)
    cost = count_model(build_model(spec, image_size=image_size), image, all_norms=spec.model.timm is not None)
    write_quietly(_memory(spec, image_size), json.dumps(asdict(cost)))
    return cost


def remembered(spec: RunSpec, image_size: int | None = None) -> Cost | None:
    """The counts of a spec if they were made before on this machine. Loads no torch."""
    try:
        return Cost(**json.loads(_memory(spec, image_size).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _memory(spec: RunSpec, image_size: int | None) -> Path:
    key = digest([spec.cost_key(), image_size, COUNTING, _fvcore_version()])
    return cache_folder() / "costs" / f"{key[:24]}.json"


def macs_at_224(spec: RunSpec) -> int | None:
    """MACs of the same model for an image of 224 x 224; None where it does not fit that size or fits it at no sane one.

    What depends on the resolution is sized for 224: with the stem of a small recipe a random matrix or an MLP over all
    tokens would have over ten thousand tokens a side, which is no model that anybody means.
    """
    at_224 = spec.model_copy(update={"data": spec.data.model_copy(update={"image_size": 224})})
    if not_applicable(at_224) is not None:
        return None
    for (height, width), mixer in zip(stage_sizes(at_224), spec.model.stages()[2], strict=True):
        if MIXERS[mixer].fixed_resolution and height * width > 3136:  # the first stage of the paper's models
            return None
    return count(spec, 224).macs


@cache
def _fvcore_version() -> str:
    return version("fvcore")


def count_model(net: nn.Module, image: tuple[int, int, int], all_norms: bool = False) -> Cost:
    """Counts a model for one image of (channels, height, width).

    `all_norms` counts LayerNorm and norms without a bias too, as fvcore does by itself: so table 2 comes out for timm's
    models, which do not write their norms out of element-wise operators.

    Raises UncountedOperator for an operator that is neither counted nor declared.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit, on which fvcore stands, is announced as deprecated
        from fvcore.nn import FlopCountAnalysis, jit_handles

        was_training = net.training
        net.eval()
        uncounted: Counter[str] = Counter()
        analysis = FlopCountAnalysis(net, torch.zeros(1, *image))
        outputs: Counter[str] = Counter()
        products = {
            "aten::_convolution": jit_handles.conv_flop_jit,
            "aten::linear": jit_handles.linear_flop_jit,
            "aten::addmm": jit_handles.addmm_flop_jit,
            "aten::matmul": jit_handles.matmul_flop_jit,
            "aten::mm": jit_handles.matmul_flop_jit,
            "aten::bmm": jit_handles.bmm_flop_jit,
            "aten::scaled_dot_product_attention": _attention_macs,
        }
        for name, handle in products.items():
            analysis.set_op_handle(name, _and_outputs(handle, outputs))
        if not all_norms:
            analysis.set_op_handle("aten::layer_norm", _not_counted("aten::layer_norm", uncounted))
            for name, bias, each in (("aten::group_norm", 3, 5), ("aten::batch_norm", 2, 2)):
                analysis.set_op_handle(name, _norm_macs(name, bias, each, uncounted))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_operator = {name: int(n) for name, n in sorted(analysis.by_operator().items()) if n}
        uncounted.update(analysis.unsupported_ops())
        additions, moved = _pooling(net, torch.zeros(1, *image))
        net.train(was_training)
    by_parts = {name for table in TABLES.values() for part in table.values() for name in part.uncounted}
    if unknown := sorted(set(uncounted) - DECLARED_UNCOUNTED - by_parts):
        names = ", ".join(unknown)
        raise UncountedOperator(
            f"{type(net).__name__} uses {names}, which is neither counted nor declared as uncounted; if it multiplies "
            f"nothing, write uncounted: [{names}] in the part's line of parts.yaml (of a part of the package: "
            f"DECLARED_UNCOUNTED or a handler in cost.py)"
        )
    sizes = [(p.numel(), p.requires_grad) for p in net.parameters()]
    scales = [p.numel() for name, p in net.named_parameters() if "layer_scale" in name]
    return Cost(
        params=sum(n for n, trained in sizes if trained),
        layer_scale_params=sum(scales),
        frozen_params=sum(n for n, trained in sizes if not trained),
        macs=sum(by_operator.values()),
        macs_by_operator=by_operator,
        uncounted=dict(sorted(uncounted.items())),
        activations=outputs.total(),
        pooling_additions=additions,
        pooling_bytes=moved,
    )


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Two matrix products a head: queries x keys, weights x values. fvcore counts fused attention as nothing."""
    query, key, value = (node.type().sizes() for node in inputs[:3])  # [..., N, D], [..., M, D], [..., M, E]
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _and_outputs(handle: Any, outputs_seen: Counter[str]) -> Any:
    """A handler that also adds up the elements that an operator puts out, attention weights left out."""

    def both(inputs: list[Any], outputs: list[Any]) -> Any:
        outputs_seen["elements"] += math.prod(outputs[0].type().sizes())
        return handle(inputs, outputs)

    return both


def _norm_macs(name: str, bias: int, each: int, uncounted: Counter[str]) -> Any:
    """`each` an element as fvcore has it, or nothing where the norm has no bias: its argument number `bias`."""

    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        if inputs[bias].type().kind() == "NoneType":
            uncounted[name] += 1
            return 0
        return each * math.prod(inputs[0].type().sizes())

    return handle


def _pooling(net: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """Additions (or comparisons) of all pooling mixers for one image, and bytes they move in fp32.

    Additions: one an entry of each window inside the map, the last of them for the subtraction of the input. Bytes: the
    pooling reads and writes the map, the subtraction reads two and writes one.
    """
    import torch

    kinds = tuple(part.load() for part in MIXERS.values() if part.pools)
    total = [0, 0]

    def watch(module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        _, channels, height, width = output.shape
        half = module.pool.kernel_size // 2
        rows = sum(min(i + half, height - 1) - max(i - half, 0) + 1 for i in range(height))
        columns = sum(min(i + half, width - 1) - max(i - half, 0) + 1 for i in range(width))
        total[0] += channels * rows * columns
        total[1] += 5 * 4 * channels * height * width

    hooks = [module.register_forward_hook(watch) for module in net.modules() if isinstance(module, kinds)]
    if hooks:
        with torch.no_grad():
            net(image)
    for hook in hooks:
        hook.remove()
    return total[0], total[1]


def _not_counted(name: str, calls: Counter[str]) -> Any:
    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        calls[name] += 1
        return 0

    return handle


@dataclass(frozen=True)
class Speed:
    """Inference in fp32 on this machine. Memory: growth of the process on a CPU, of the allocator on a GPU."""

    images_per_second: float
    peak_memory_bytes: int | None
    batch_size: int
    device: str
    threads: int


def measure_speed(spec: RunSpec, device: torch.device, batch_size: int, seconds: float = 1.0) -> Speed:
    """Times inference of random images of the spec's resolution: median over batches for about `seconds`."""
    import time
    from statistics import median

    import torch

    from metaformer_ablate.models.build import build_model

    size = spec.data.image_size
    net = build_model(spec).eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(batch_size, DATASETS[spec.data.name].channels, size, size, device=device)
    images = images.to(memory_format=torch.channels_last)
    times: list[float] = []
    with torch.inference_mode():
        before = start_peak_memory(device)
        net(images)
        peak = peak_memory(device)
        while sum(times) < seconds or len(times) < 3:
            start = time.perf_counter()
            net(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
    growth = None if peak is None or before is None else max(peak - before, 0)
    return Speed(batch_size / median(times), growth, batch_size, device_name(device), torch.get_num_threads())


def start_peak_memory(device: torch.device) -> int | None:
    """Begins to watch the peak of memory; the bytes in use now, None where the system does not tell."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/clear_refs", "w") as stream:  # Linux: the peak starts again from what is resident now
            stream.write("5")
    except OSError:
        pass
    return peak_memory(device)


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes since `start_peak_memory`: allocated on a GPU, resident of the whole process on a CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/status") as stream:
            return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def device_name(device: torch.device) -> str:
    """The name of the chip, as records and tables give it."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    import platform

    try:
        with open("/proc/cpuinfo") as stream:
            return next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
