"""What test_kernels.py runs in processes of its own: the Triton kernels against the plain modules.

With TRITON_INTERPRET=1, which has to be set before Triton is imported, they run on the CPU; without it on a GPU:

    TRITON_INTERPRET=1 python -m pytest tests/helpers/kernel_checks.py
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from specs import build_net, spec_of
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.models.kernels import PoolingBlock, norm_pool
from metaformer_ablate.models.metaformer import MetaFormerBlock
from metaformer_ablate.models.mixers import Site
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.module import Classification
from metaformer_ablate.training.micro_batches import MicroBatches

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
on_gpus = pytest.mark.skipif(DEVICE == "cpu", reason="runs on a GPU")
U = 2.0**-24  # the relative error of one operation in fp32
# Operations in fp32 that one number goes through: 9 + 9 additions of a window, some 16 rows and 6 halvings in a tile,
# the tiles, the channels added pairwise, and a dozen products.
ROUNDINGS = 64

# What a number loses in bfloat16: half of its last bit, but the interpreter cuts it off.
BFLOAT16 = 2.0**-8 if DEVICE == "cuda" else 2.0**-7

# Batch, channels, height, width: less and more than the 16 rows and the 64 channels of 8 columns that a tile has, and
# one position.
SHAPES = [(2, 5, 3, 7), (1, 67, 2, 11), (1, 3, 17, 2), (2, 7, 1, 1)]


def slowly(values: list[Any], *fast: Any) -> list[Any]:
    """Parameters of which all but some are slow: the interpreter is."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


BLOCKS = [(shape, pool_size) for shape in SHAPES for pool_size in (1, 3, 5, 7, 9)]


@dataclass(frozen=True)
class Case:
    """Two blocks of the same weights, the plain one in float64, and an input and a gradient for them."""

    plain: MetaFormerBlock
    fused: PoolingBlock
    x: Tensor
    gradient: Tensor


def case(
    shape: tuple[int, int, int, int],
    pool_size: int,
    *,
    drop_path: float = 0.0,
    res_scale: float | None = None,
    **model: Any,
) -> Case:
    _, channels, height, width = shape
    torch.manual_seed(sum(shape) + pool_size)
    settings = ModelSpec(**{"channel_mlp": False, "layer_scale": 0.7, **model})
    site = Site(dim=channels, height=height, width=width, block=0, seed=0, pool_size=pool_size)
    fused = PoolingBlock(settings, site, "pooling", drop_path, res_scale)
    for parameter in fused.parameters():
        nn.init.normal_(parameter, 0.8, 0.5)
    plain = MetaFormerBlock(settings, site, "pooling", drop_path, res_scale).double()
    plain.load_state_dict(fused.state_dict())
    x = (2 * torch.randn(shape) + 1).contiguous(memory_format=torch.channels_last)
    return Case(plain.to(DEVICE), fused.to(DEVICE), x.to(DEVICE), torch.randn(shape).to(DEVICE))


def through(block: nn.Module, x: Tensor, gradient: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The output and the gradients of the input and each parameter, in float64."""
    x = x.detach().clone().requires_grad_()
    block.zero_grad()
    torch.manual_seed(seed)
    out = block(x)
    out.backward(gradient.to(out.dtype))
    results = {"out": out, "x": x.grad, **{name: p.grad for name, p in block.named_parameters()}}
    return {name: value.detach().double() for name, value in results.items() if value is not None}


def magnitudes(block: MetaFormerBlock, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """What rounding is relative to: each result with the absolute values of all that is added up in it."""
    x, gradient = x.double(), gradient.double().abs()
    size = block.token_mixer.pool.kernel_size
    var, mean = torch.var_mean(x, (1, 2, 3), correction=0)
    rstd = (var + block.norm1.eps).rsqrt().view(-1, 1, 1, 1)
    keep = 1 / (1 - block.drop_path1.rate)
    scales = {"norm1.weight": block.norm1.weight.abs().detach()}
    if (layer_scale := getattr(block.layer_scale1, "scale", None)) is not None:
        scales["layer_scale1.scale"] = layer_scale.abs().detach()
    factor = keep * torch.stack(list(scales.values())).prod(0).view(-1, 1, 1)
    if res_scale := getattr(block.res_scale1, "scale", None) is not None:
        scales["res_scale1.scale"] = block.res_scale1.scale.abs().detach()
    residual = scales.get("res_scale1.scale", x.new_ones(1)).view(-1, 1, 1) if block.residual else 0.0

    def window_sum(value: Tensor) -> Tensor:
        return F.avg_pool2d(value, size, 1, size // 2, divisor_override=1)

    share = 1 / window_sum(torch.ones_like(x))
    mixed = window_sum(x.abs()) * share + x.abs()
    sums = (gradient * mixed).sum((2, 3)) * rstd.flatten(1)  # [B, C]
    slope = rstd.square() * (factor.flatten() * sums).sum(1).view(-1, 1, 1, 1) / x[0].numel()
    spread = rstd * factor * (window_sum(gradient * share) + gradient)
    found = {
        "out": residual * x.abs() + factor * rstd * mixed,
        "x": residual * gradient + spread + slope * (x.abs() + mean.abs().view(-1, 1, 1, 1)),
        "norm1.weight": keep * sums.sum(0) * scales.get("layer_scale1.scale", 1.0),
        "layer_scale1.scale": keep * sums.sum(0) * scales["norm1.weight"],
        "norm1.bias": torch.zeros_like(scales["norm1.weight"]),
    }
    if res_scale:
        found["res_scale1.scale"] = (gradient * x.abs()).sum((0, 2, 3))
    return found


def check(made: Case, *, x_type: torch.dtype = torch.float32, seed: int = 0) -> None:
    """The fused block against the plain one in float64, to what rounding explains."""
    x = made.x.to(x_type)
    expected = through(made.plain, x.double(), made.gradient.double(), seed)
    found = through(made.fused, x, made.gradient, seed)
    assert found.keys() == expected.keys()
    wide = magnitudes(made.plain, x, made.gradient)
    for name, value in found.items():
        error = (value - expected[name]).abs()
        allowed = ROUNDINGS * U * wide[name]
        if name == "x" and x_type == torch.bfloat16:
            allowed = allowed + BFLOAT16 * expected["x"].abs()  # its gradient has its type
        if name == "norm1.bias":  # zero; the plain one is what rounding in float64 leaves of it
            assert not value.any()
            continue
        assert (error <= allowed).all(), f"{name}: {(error / allowed.clamp_min(1e-300)).max():.3g} of what is allowed"


@pytest.mark.parametrize("at", slowly(BLOCKS, *((shape, 3) for shape in SHAPES), (SHAPES[3], 9)), ids=str)
def test_block_is_the_plain_one_in_float64(at: tuple[tuple[int, int, int, int], int]) -> None:
    shape, pool_size = at
    check(case(shape, pool_size))


@pytest.mark.parametrize(
    "options",
    [
        {"residual": False},
        {"layer_scale": None},
        {"layer_scale": None, "norm_bias": False},
        {"res_scale": 0.6},
        {"norm_eps": 0.5},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", slowly([True, False], False))
def test_other_blocks_are_the_plain_ones(options: dict[str, Any], training: bool) -> None:
    made = case((2, 5, 3, 7), 3, **options)
    made.plain.train(training)
    made.fused.train(training)
    check(made)


def test_stochastic_depth_drops_the_same_images() -> None:
    made = case((6, 3, 3, 2), 3, drop_path=0.5)
    same = copy.deepcopy(made.plain).float()
    dropped = []
    for block in (made.fused, same):
        torch.manual_seed(5)
        dropped.append((block(made.x) == made.x).flatten(1).all(1))
    assert dropped[0].any() and not dropped[0].all()
    assert dropped[0].equal(dropped[1])


def test_stochastic_depth_trains_as_the_plain_one() -> None:
    made = case((6, 3, 3, 2), 3, drop_path=0.5)
    masks = []
    for block in (made.fused, made.plain):
        kind = next(block.parameters()).dtype
        torch.manual_seed(5)
        masks.append(block.drop_path1(torch.ones(6, 1, 1, 1, dtype=kind, device=DEVICE)).double())
    if not masks[0].equal(masks[1]):  # in float64 a generator may draw others
        made.plain.drop_path1.forward = lambda x: x * masks[0]
    check(made, seed=5)


def test_parts_of_a_batch_are_drawn_as_the_whole_of_it() -> None:
    made = case((6, 3, 3, 2), 3, drop_path=0.5)
    torch.manual_seed(5)
    whole = made.fused(made.x)
    parts = MicroBatches(2, made.fused, 6)
    for parts.at in range(2):
        torch.manual_seed(5)
        assert made.fused(parts.take(made.x)).equal(parts.take(whole))


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_bfloat16_is_added_up_in_fp32(shape: tuple[int, int, int, int]) -> None:
    made = case(shape, 3)
    assert made.fused(made.x.bfloat16()).dtype == torch.float32  # the wider of the map and the weights
    check(made, x_type=torch.bfloat16)


def test_a_block_of_bfloat16_gives_bfloat16() -> None:
    made = case((2, 5, 3, 7), 3)
    made.fused.bfloat16()
    made.plain.load_state_dict(made.fused.state_dict())
    x = made.x.bfloat16()
    out = made.fused(x)
    assert out.dtype == torch.bfloat16
    expected = made.plain(x.double())
    # The product of weight and LayerScale is rounded to bfloat16, and so is the result.
    branch = (expected - x.double()).abs()
    assert ((out.double() - expected).abs() <= BFLOAT16 * (expected.abs() + branch) + 1e-6).all()


def test_float64_is_refused() -> None:
    made = case((2, 3, 5, 7), 3)
    with pytest.raises(TypeError, match="computes in fp32"):
        made.fused.double()(made.x.double())


@pytest.mark.parametrize("contiguous", slowly(["map", "gradient"], "map"))
def test_memory_formats_give_the_same_bits(contiguous: str) -> None:
    made = case((2, 5, 3, 7), 3)
    x, gradient = made.x, made.gradient.to(memory_format=torch.channels_last)
    expected = through(made.fused, x, gradient)
    x, gradient = (x.contiguous(), gradient) if contiguous == "map" else (x, gradient.contiguous())
    assert made.fused(x).is_contiguous(memory_format=torch.channels_last)
    for name, value in through(made.fused, x, gradient).items():
        assert value.equal(expected[name]), name


def test_images_do_not_touch_one_another() -> None:
    made = case((3, 5, 7, 11), 3)
    alone = torch.cat([made.fused(image[None]) for image in made.x])
    assert made.fused(made.x).equal(alone)


@pytest.mark.parametrize("residual", slowly([True, False], True))
@pytest.mark.parametrize("shape", slowly([(2, 5, 3, 7), (2, 3, 1, 1)], (2, 3, 1, 1)), ids=str)
def test_torch_accepts_the_operator(shape: tuple[int, int, int, int], residual: bool) -> None:
    x = torch.randn(shape, device=DEVICE)
    factor = torch.rand(shape[:2], device=DEVICE)
    for image in (x, x.contiguous(memory_format=torch.channels_last), x.bfloat16()):
        var, mean = torch.var_mean(image.float(), (1, 2, 3), correction=0)
        tensors = (image.requires_grad_(), factor.requires_grad_(), mean.detach(), (var.detach() + 1e-5).rsqrt())
        torch.library.opcheck(norm_pool, (*tensors, 3, residual))


# ---------------------------------------------------------------------------------------------------------------------
# Whole models

SETTINGS = {
    "model.depths": [1, 1],
    "model.dims": [5, 7],
    "model.layer_scale": 0.3,
    "model.drop_path": 0.3,
    "data.image_size": 11,
}


def models() -> tuple[nn.Module, nn.Module]:
    """A plain and a fused one of the same spec."""
    spec = spec_of(SETTINGS)
    nets = (build_net(spec), build_net(spec, kernels="triton"))
    assert not any(isinstance(module, PoolingBlock) for module in nets[0].modules())
    assert sum(isinstance(module, PoolingBlock) for module in nets[1].modules()) == 2
    return nets[0].to(DEVICE), nets[1].to(DEVICE)


def test_weights_have_the_same_names_and_values_and_go_over() -> None:
    plain, fused = models()
    state, other = plain.state_dict(), fused.state_dict()
    assert list(state) == list(other)
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in fused.named_parameters()]
    assert all(value.equal(other[name]) for name, value in state.items())
    changed = {name: torch.rand_like(value) for name, value in state.items()}
    fused.load_state_dict(changed)
    plain.load_state_dict(fused.state_dict())
    assert all(value.equal(changed[name]) for name, value in plain.state_dict().items())
    assert all(value.equal(changed[name]) for name, value in copy.deepcopy(fused).state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_a_model_is_as_close_to_float64_as_the_plain_one(training: bool) -> None:
    """Rounding has many ways through a net: the plain net in fp32 is the measure of how much of it there is."""
    plain, fused = models()
    exact = copy.deepcopy(plain).double()
    images = torch.randn(5, 1, 11, 11, device=DEVICE)
    masks: dict[str, list[Tensor]] = {}
    results = {}
    for kind, net in (("plain", plain), ("fused", fused), ("exact", exact)):
        net.train(training)
        for name, module in net.named_modules():
            if "drop_path" in name and kind == "exact":  # with the masks of fp32
                module.forward = lambda x, mask=masks[name][0]: x * mask.double()
            elif "drop_path" in name:
                module.register_forward_hook(
                    lambda module, inputs, out, name=name: masks.setdefault(name, []).append(
                        (out / inputs[0]).detach().flatten(1)[:, :1].view(-1, 1, 1, 1).nan_to_num(1.0)
                    )
                )
        results[kind] = through(net, images.to(next(net.parameters()).dtype), torch.ones(5, 10, device=DEVICE))
    assert len(masks) == 4
    assert all(torch.allclose(first, second, rtol=1e-6) for first, second in masks.values())
    assert any((first == 0).any() for first, _ in masks.values()) == training
    for name, value in results["exact"].items():
        errors = [(results[kind][name] - value).abs().max() for kind in ("fused", "plain")]
        if name.endswith("norm1.bias"):
            assert not results["fused"][name].any()
        else:
            assert errors[0] <= 4 * errors[1] + ROUNDINGS * U * value.abs().max(), (name, errors)


@pytest.mark.slow
def test_a_step_of_training_is_that_of_the_plain_model() -> None:
    spec = spec_of({**SETTINGS, "train.lr": 1e-2, "train.eps": 1e-3})
    plain, fused = models()
    images = torch.randint(0, 256, (5, 1, 11, 11), dtype=torch.uint8, device=DEVICE)
    labels = torch.arange(5, device=DEVICE)
    start = {name: value.clone() for name, value in plain.state_dict().items()}
    for net in (plain, fused):
        augment = Augment(spec.data, 10, (0.5,), (0.25,), spec.train.memory_format)
        task = Classification(net, spec.train, augment, steps_per_epoch=4, seed=0)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, eps=1e-3, weight_decay=0.05)
        torch.manual_seed(0)
        inputs, targets = task.augment(images, labels)
        F.cross_entropy(task(inputs), targets).backward()
        optimizer.step()
    for name, value in plain.state_dict().items():
        moved = (value - start[name]).abs().max()
        if name.endswith("norm1.bias"):  # without a part in the result; rounding moves the plain one
            assert fused.state_dict()[name].equal(start[name])
            continue
        assert moved > 0
        assert (fused.state_dict()[name] - value).abs().max() <= 1e-3 * moved, name


@pytest.mark.slow
def test_the_compiler_sees_one_graph() -> None:
    """`fullgraph` is an error where the graph breaks. On a GPU with the compiler proper."""
    _, fused = models()
    images = torch.randn(5, 1, 11, 11, device=DEVICE)
    gradient = torch.ones(5, 10, device=DEVICE)
    expected = through(fused.eval(), images, gradient)
    compiled = torch.compile(fused, fullgraph=True, backend="aot_eager" if DEVICE == "cpu" else "inductor")
    found = through(compiled, images, gradient)
    for name, value in expected.items():
        close = (found[f"_orig_mod.{name}" if name in dict(fused.named_parameters()) else name] - value).abs().max()
        assert close <= 1e-4 * value.abs().max() + 1e-12, name


@on_gpus
@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_is_the_plain_model_to_bfloat16(compiled: bool) -> None:
    plain, fused = models()
    images = torch.randn(5, 1, 11, 11, device=DEVICE)
    logits = []
    for net in (plain, fused):
        net.eval()
        run = torch.compile(net, fullgraph=True) if compiled else net
        with torch.autocast("cuda", torch.bfloat16):
            logits.append(run(images).double())
    exact = copy.deepcopy(plain).double()(images.double())
    errors = [(value - exact).abs().max() for value in (logits[1], logits[0])]
    assert errors[0] <= 4 * errors[1] + 2.0**-8 * exact.abs().max()


@on_gpus
def test_the_same_input_gives_the_same_bits() -> None:
    made = case((64, 67, 57, 59), 3)
    first, second = (through(made.fused, made.x, made.gradient) for _ in range(2))
    assert all(value.equal(second[name]) for name, value in first.items())
    check(case((64, 67, 57, 59), 3))
