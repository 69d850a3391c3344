"""What a model costs: parameters, multiply-adds and what was not counted; speed and memory on this machine.

Multiply-adds (MACs) are fvcore's "flops" of one image, as in the paper's third version: convolutions, linear layers
and matrix products (attention too, by a handler of ours), GroupNorm at 5 per element and BatchNorm at 2. Not counted:
pooling, element-wise operators, and the norms that the authors write out of element-wise operators: LayerNorm, and any
norm without a bias (MetaFormer Baselines); in timm's models and in classes of one's own every norm is counted, as
fvcore does by itself. Pooling multiplies nothing, so its additions and bytes stand by themselves. Where a model uses an
operator that nobody counts (an FFT), its MACs are a lower bound, and are shown as one.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from metaformer_ablate.errors import ModelRefused, shown
from metaformer_ablate.models.class_file import described
from metaformer_ablate.models.components import Component
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.user_components import class_files
from metaformer_ablate.tasks.base import CostPart

if TYPE_CHECKING:
    import torch
    from torch import nn


# Operators that may stay uncounted: they move or combine elements and multiply no matrices. With any other that fvcore
# does not know MACs are a lower bound (`open_operators`), so that a new mixer cannot hide its cost.
DECLARED_UNCOUNTED = frozenset(
    "aten::" + name
    for line in (
        "add add_ sub rsub neg mul mul_ div pow square sqrt rsqrt mean sum addcmul",
        "gelu silu sigmoid relu softmax layer_norm rms_norm group_norm batch_norm",
        "avg_pool2d max_pool2d max_pool2d_with_indices adaptive_avg_pool1d avg_pool1d",
        "feature_dropout pad repeat clone ones_like new_ones expand_as lift_fresh real imag view_as_complex",
        "view_as_real flip roll index index_select gather",
    )
    for name in line.split()
)


def open_operators(uncounted: Iterable[str]) -> list[str]:
    """Of the operators that were not counted, those that nobody has declared to multiply nothing: MACs lack theirs."""
    by_parts = {name for table in COMPONENTS.tables for part in table.values() for name in part.uncounted}
    return sorted(set(uncounted) - DECLARED_UNCOUNTED - by_parts)


def lower_bound_notes(uncounted: Iterable[str]) -> list[str]:
    """What is to be said of MACs that are a lower bound; nothing where they are not."""
    if not (names := open_operators(uncounted)):
        return []
    return [f"MACs are a lower bound: nobody counts {', '.join(names)}"]


_Count = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Cost:
    """Counts of one model for one image. `params` are trained, `frozen_params` are not.

    `layer_scale_params` are those of `params` that the paper's table 1 leaves out, and table 1 alone. `activations` are
    the elements that convolutions, linear layers, matrix products and attention put out (arXiv 2003.13678).
    """

    params: _Count
    layer_scale_params: _Count
    frozen_params: _Count
    macs: _Count
    macs_by_operator: dict[str, _Count]
    uncounted: dict[str, _Count]  # operator: calls
    activations: _Count
    pooling_additions: _Count
    pooling_bytes: _Count
    macs_by_part: dict[str, _Count] = dataclasses.field(default_factory=dict)  # of a net of several parts, in order


def count_model(net: nn.Module, image: tuple[int, int, int], all_norms: bool = False) -> Cost:
    """Counts a model for one image of (channels, height, width); `count_parts` says more."""
    import torch

    like = next(net.parameters(), torch.zeros(()))  # where the net lies
    image_in = torch.zeros(1, *image, device=like.device, dtype=like.dtype)
    return count_parts(net, [CostPart("net", net, (image_in,))], all_norms)


def count_parts(
    net: nn.Module, parts: Sequence[CostPart], all_norms: bool = False, own: Mapping[str, Component] | None = None
) -> Cost:
    """Counts a net, its multiply-adds part by part. What is in no part is in the parameters alone.

    `all_norms` counts LayerNorm and norms without a bias too, as fvcore does by itself: so table 2 comes out for timm's
    models, which do not write their norms out of element-wise operators. `own` are the user's components in it, by
    name: one that has a function `macs` is counted by that alone.

    Raises ModelRefused where such a function gives no count.
    """
    was_training = net.training
    net.eval()
    by_operator: Counter[str] = Counter()
    by_part: dict[str, int] = {}
    uncounted: Counter[str] = Counter()
    outputs = additions = moved = 0
    for part in parts:
        apart = _own_counts(part, own or {})
        macs, elements, calls = _operators(part.module, part.inputs, all_norms, [path for path, _, _ in apart])
        for _, component, number in apart:
            macs[component] = macs.get(component, 0) + number
        by_part[part.name] = sum(macs.values())
        by_operator.update(macs)
        uncounted.update(calls)
        outputs += elements
        added, bytes_moved = _pooling(part.module, part.inputs)
        additions, moved = additions + added, moved + bytes_moved
    net.train(was_training)
    sizes = [(p.numel(), p.requires_grad) for p in net.parameters()]
    scales = [p.numel() for name, p in net.named_parameters() if "layer_scale" in name and p.requires_grad]
    return Cost(
        params=sum(n for n, trained in sizes if trained),
        layer_scale_params=sum(scales),
        frozen_params=sum(n for n, trained in sizes if not trained),
        macs=sum(by_operator.values()),
        macs_by_operator=dict(sorted(by_operator.items())),
        uncounted=dict(sorted(uncounted.items())),
        activations=outputs,
        pooling_additions=additions,
        pooling_bytes=moved,
        macs_by_part=by_part if len(by_part) > 1 else {},
    )


def _own_counts(part: CostPart, own: Mapping[str, Component]) -> list[tuple[str, str, int]]:
    """Of each module of the user's own that a function counts: its path, what parts.yaml calls it, and its MACs."""
    import torch

    functions = {
        component.load(): (name.partition("@")[0], component, component.load_macs())
        for name, component in own.items()
        if component.macs
    }
    found: list[tuple[str, str, int]] = []

    def watch(path: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            name, component, function = functions[type(module)]
            found.append((path, name, _asked(function, name, component, module, tuple(inputs[0].shape[1:]))))

        return hook

    paths = [(path, module) for path, module in part.module.named_modules() if type(module) in functions]
    hooks = [module.register_forward_hook(watch(path)) for path, module in paths]
    if hooks:
        with torch.no_grad():
            part.module(*part.inputs)
    for hook in hooks:
        hook.remove()
    return found


def _asked(function: Any, name: str, component: Component, module: nn.Module, shape: tuple[int, ...]) -> int:
    """What the user's function says of a module and the shape of its input, for one image."""
    try:
        number = function(module, shape)
    except Exception as error:
        said = described(error, class_files({name: component}))
        raise ModelRefused(f"{name}: its function {component.macs} cannot count {list(shape)}: {said}") from None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        raise ModelRefused(
            f"{name}: its function {component.macs} gives {shown(number)} for {list(shape)}; allowed: the "
            "multiply-adds of one image, a whole number of at least 0"
        )
    return number


def _operators(
    net: nn.Module, inputs: tuple[Any, ...], all_norms: bool, apart: Sequence[str]
) -> tuple[dict[str, int], int, Counter[str]]:
    """MACs by operator, the elements that counted operators put out, and calls of operators that are not counted.

    What is inside the modules of `apart`, by path, is counted elsewhere.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit, on which fvcore stands, is announced as deprecated
        from fvcore.nn import FlopCountAnalysis, jit_handles

        uncounted: Counter[str] = Counter()
        analysis = FlopCountAnalysis(net, inputs)
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
        counts = Counter(analysis.by_operator())
        uncounted.update(analysis.unsupported_ops())
        for path in dict.fromkeys(apart):
            counts.subtract(analysis.by_module_and_operator()[path])
            uncounted.subtract(analysis.unsupported_ops(path))
    by_operator = {name: int(n) for name, n in sorted(counts.items()) if n}
    return by_operator, outputs.total(), +uncounted


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """Two matrix products per head: queries x keys, weights x values. fvcore counts fused attention as nothing."""
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


def _pooling(net: nn.Module, inputs: tuple[Any, ...]) -> tuple[int, int]:
    """Additions (or comparisons) of all pooling mixers for one image, and bytes they move in fp32.

    Additions: one an entry of each window inside the map, the last of them for the subtraction of the input. Bytes: the
    pooling reads and writes the map, the subtraction reads two and writes one.
    """
    import torch

    kinds = tuple(part.load() for part in COMPONENTS.mixers.values() if part.pools)
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
            net(*inputs)
    for hook in hooks:
        hook.remove()
    return total[0], total[1]


def _not_counted(name: str, calls: Counter[str]) -> Any:
    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        calls[name] += 1
        return 0

    return handle
