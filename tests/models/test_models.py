"""Every part of the tables, and the blocks, stages and model around them. Sizes are different primes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm.layers
import torch
from specs import build_net, spec_of
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS
from metaformer_ablate.models.metaformer import ChannelScale, MetaFormer, MetaFormerBlock, StochasticDepth
from metaformer_ablate.models.mixers import Pooling, Site
from metaformer_ablate.models.norms import ModifiedLayerNorm
from metaformer_ablate.models.spec import ModelSpec

BATCH, HEIGHT, WIDTH = 3, 5, 7
OPTIONS = {"pool_size": 3, "kernel_size": 3, "window": 3, "head_dim": 2}  # small beside the maps


def options_for(name: str) -> dict[str, Any]:
    """A value for each option that a mixer reads: a small one, its own default or the schema's."""
    part = MIXERS[name]
    default = {option: ModelSpec.model_fields[option].default for option in part.reads}
    return {option: OPTIONS.get(option, part.defaults.get(option, default[option])) for option in part.reads}


def channels(name: str, prime: int) -> int:
    """A prime number of channels; that many heads where a mixer has heads."""
    return prime * OPTIONS["head_dim"] if "head_dim" in MIXERS[name].reads else prime


def site_for(name: str) -> Site:
    """A block in which a mixer can stand."""
    return Site(dim=channels(name, 11), height=HEIGHT, width=WIDTH, block=0, seed=0, **options_for(name))


def mixer_case(name: str) -> tuple[nn.Module, int]:
    site = site_for(name)
    return MIXERS[name].load()(site), site.dim


def norm_case(name: str, bias: bool = True) -> tuple[nn.Module, int]:
    reads = NORMS[name].reads
    eps = 1e-5 if "norm_eps" in reads else None
    return NORMS[name].load()(11, eps, bias if "norm_bias" in reads else None), 11


def activation_case(name: str) -> tuple[nn.Module, int]:
    return ACTIVATIONS[name].load()(), 11


CASES = {
    **{f"mixer {name}": (mixer_case, name) for name in MIXERS},
    **{f"norm {name}": (norm_case, name) for name in NORMS},
    **{f"activation {name}": (activation_case, name) for name in ACTIVATIONS},
}


@pytest.fixture(params=CASES)
def part(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """A part of a table and an input for it."""
    make, name = CASES[request.param]
    torch.manual_seed(0)
    module, dim = make(name)
    return module, torch.randn(BATCH, dim, HEIGHT, WIDTH)


def model_settings(mixer: str = "pooling", **model: Any) -> dict[str, Any]:
    """Two stages, 11 x 11 and 6 x 6, with a mixer in both. Scales at which no branch vanishes."""
    settings: dict[str, Any] = {"token_mixer": mixer, "depths": [1, 2], "dims": [channels(mixer, p) for p in (5, 7)]}
    settings |= {"layer_scale": 0.3, "drop_path": 0.0, **options_for(mixer), **model}
    return {"data.image_size": 11, **{f"model.{key}": value for key, value in settings.items()}}


MODELS = {
    **{f"mixer {name}": model_settings(name) for name in MIXERS},
    **{f"norm {name}": model_settings(norm=name) for name in NORMS},
    **{f"activation {name}": model_settings(activation=name) for name in ACTIVATIONS},
    "no residual": model_settings(residual=False),
    "no channel MLP": model_settings(channel_mlp=False),
    "no LayerScale": model_settings(layer_scale=None),
    "stochastic depth": model_settings(drop_path=0.3),
    "no bias": model_settings(norm_bias=False, mlp_bias=False),
    "no bias in the mixer": model_settings("separable_conv", mixer_bias=False),
    "ResScale": model_settings(res_scale=0.7),
    "position embedding": model_settings("attention", position_embedding=True),
    "norms in stem and down-sampling": model_settings(**{"stem.norm": "layer_norm", "downsample.norm": "mln"}),
    "head norm after pooling": model_settings(head_norm="after_pool"),
    "MLP head": model_settings(head="mlp", head_dropout=0.2),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """A whole model, for each part of the tables and each switch, and images for it."""
    torch.manual_seed(1)
    return build_net(spec_of(MODELS[request.param])), torch.randn(BATCH, 1, 11, 11)


# ---------------------------------------------------------------------------------------------------------------------
# Each part by itself


def test_part_keeps_the_shape_and_is_finite(part: tuple[nn.Module, Tensor]) -> None:
    module, x = part
    for value in (x, torch.zeros_like(x), torch.full_like(x, 100.0), 1e4 * x):
        y = module(value)
        assert y.shape == x.shape
        assert y.isfinite().all()


def test_part_passes_a_gradient_to_its_input_and_each_parameter(part: tuple[nn.Module, Tensor]) -> None:
    module, x = part
    x.requires_grad_()
    y = module(x)
    (y * torch.randn_like(y)).sum().backward()
    for name, tensor in [("input", x), *trained(module)]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all() and tensor.grad.abs().max() > 0, name


def test_part_gives_a_sample_alone_what_it_gives_it_in_a_batch(part: tuple[nn.Module, Tensor]) -> None:
    module, x = part
    module(2 * x + 1)  # what a norm keeps of a batch in training must not matter later
    module.eval()
    with torch.no_grad():
        alone = torch.cat([module(sample[None]) for sample in x])
        torch.testing.assert_close(alone, module(x))


def test_part_does_not_depend_on_the_memory_format(part: tuple[nn.Module, Tensor]) -> None:
    module, x = part
    torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), module(x))


def test_part_leaves_its_input_alone(part: tuple[nn.Module, Tensor]) -> None:
    module, x = part
    before = x.clone()
    module(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", [name for name, part in NORMS.items() if "norm_bias" in part.reads])
def test_norm_without_bias_has_none(name: str) -> None:
    with_bias, _ = norm_case(name, bias=True)
    without, _ = norm_case(name, bias=False)
    assert {key.split(".")[-1] for key, _ in with_bias.named_parameters()} >= {"weight", "bias"}
    assert not [key for key, _ in without.named_parameters() if key.endswith("bias")]


# ---------------------------------------------------------------------------------------------------------------------
# Worked out by hand


def pool(values: list[list[float]], size: int) -> list[list[float]]:
    x = torch.tensor(values, dtype=torch.float64)[None, None]
    return Pooling(Site(1, x.shape[2], x.shape[3], 0, 0, pool_size=size))(x)[0, 0].tolist()


def test_pooling_by_hand() -> None:
    # Every 3 x 3 window covers all of a 2 x 2 map: the mean is 2.5. A border counted as zeros would give 10 / 9.
    assert pool([[1, 2], [3, 4]], 3) == [[1.5, 0.5], [-0.5, -1.5]]
    # In 1 ... 9 the corners have 4 neighbours (the first: 1, 2, 4, 5), the edges 6, the centre 9.
    assert pool([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 3) == [[2, 1.5, 1], [0.5, 0, -0.5], [-1, -1.5, -2]]
    # A size of 5 reaches two rows and columns: all of a 3 x 3 map.
    assert pool([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 5) == [[4, 3, 2], [1, 0, -1], [-2, -3, -4]]
    # Size 1 is the position itself, minus itself.
    assert pool([[1, 2], [3, 4]], 1) == [[0, 0], [0, 0]]


def site(**options: Any) -> Site:
    return Site(**{"dim": 4, "height": 2, "width": 3, "block": 0, "seed": 0, **options})


def test_max_pooling_by_hand() -> None:
    x = torch.tensor([[-1.0, -2, -3], [-4, -5, -6], [-7, -8, -9]])[None, None]  # zeros at the border would win
    mixed = MIXERS["max_pooling"].load()(site(pool_size=3))(x)
    assert mixed[0, 0].tolist() == [[0, 1, 1], [3, 4, 4], [3, 4, 4]]


def test_random_matrix_by_hand() -> None:
    module = MIXERS["random"].load()(site(block=3, seed=2))
    matrix = torch.rand(6, 6, generator=torch.Generator().manual_seed(2 * 65_537 + 3)).softmax(1)
    assert torch.equal(module.random_matrix, matrix) and not module.random_matrix.requires_grad
    torch.testing.assert_close(matrix.sum(1), torch.ones(6))
    x = torch.randn(5, 4, 2, 3)
    expected = torch.einsum("nm,bcm->bcn", matrix, x.flatten(2))  # token n takes row n
    torch.testing.assert_close(module(x).flatten(2), expected)
    matrices = {
        MIXERS["random"].load()(site(block=b, seed=s)).random_matrix[0, 0].item() for b in (0, 1) for s in (0, 1)
    }
    assert len(matrices) == 4, "each block and each seed draws its own"


def test_spatial_fc_and_token_mlp_mix_tokens_of_each_channel_alike() -> None:
    x = torch.randn(5, 4, 2, 3)
    fc = MIXERS["spatial_fc"].load()(site())
    assert [name for name, _ in fc.named_parameters()] == ["fc.weight"], "no bias (paper, table 5)"
    torch.testing.assert_close(fc(x).flatten(2), torch.einsum("nm,bcm->bcn", fc.fc.weight, x.flatten(2)))
    mlp = MIXERS["token_mlp"].load()(site(token_mlp_ratio=0.75, mixer_bias=True))
    assert mlp.fc1.weight.shape == (3, 6)
    expected = F.gelu(x.flatten(2) @ mlp.fc1.weight.T + mlp.fc1.bias) @ mlp.fc2.weight.T + mlp.fc2.bias
    torch.testing.assert_close(mlp(x).flatten(2), expected)


def test_depthwise_conv_has_one_filter_a_channel() -> None:
    module = MIXERS["depthwise_conv"].load()(site(kernel_size=3, mixer_bias=True))
    assert sum(parameter.numel() for parameter in module.parameters()) == 4 * 9 + 4
    x = torch.randn(5, 4, 2, 3)
    for channel in range(4):
        weight, bias = module.weight[channel : channel + 1], module.bias[channel : channel + 1]
        expected = F.conv2d(x[:, channel : channel + 1], weight, bias, padding=1)
        torch.testing.assert_close(module(x)[:, channel : channel + 1], expected)


def attention_by_hand(module: nn.Module, tokens: Tensor, head_dim: int) -> Tensor:
    """[N, C] -> [N, C], one head after another."""
    query, key, value = (tokens @ module.qkv.weight.T).chunk(3, dim=1)
    heads = []
    for at in range(0, tokens.shape[1], head_dim):
        q, k, v = (part[:, at : at + head_dim] for part in (query, key, value))
        heads.append((q @ k.T / math.sqrt(head_dim)).softmax(1) @ v)
    return torch.cat(heads, 1) @ module.proj.weight.T + module.proj.bias


def test_attention_by_hand() -> None:
    module = MIXERS["attention"].load()(site(head_dim=2, mixer_bias=True))
    assert module.qkv.bias is None
    x = 3 * torch.randn(2, 4, 2, 3)
    for sample, mixed in zip(x, module(x), strict=True):
        expected = attention_by_hand(module, sample.flatten(1).T, 2)
        torch.testing.assert_close(mixed.flatten(1).T, expected)


def test_window_attention_is_attention_in_each_window() -> None:
    module = MIXERS["window_attention"].load()(site(height=5, width=7, window=3, head_dim=2, mixer_bias=True))
    x = 3 * torch.randn(2, 4, 5, 7)
    mixed = module(x)
    for top in (0, 3):
        for left in (0, 3, 6):  # at the borders the windows are cut: 2 rows, 1 column
            inside = (slice(None), slice(top, top + 3), slice(left, left + 3))
            for sample, result in zip(x, mixed, strict=True):
                expected = attention_by_hand(module, sample[inside].flatten(1).T, 2)
                torch.testing.assert_close(result[inside].flatten(1).T, expected)
    whole = MIXERS["window_attention"].load()(site(window=9, head_dim=2, mixer_bias=True))
    plain = MIXERS["attention"].load()(site(head_dim=2, mixer_bias=True))
    plain.load_state_dict(whole.state_dict())
    torch.testing.assert_close(whole(x[:, :, :2, :3]), plain(x[:, :, :2, :3]))


def test_separable_conv_by_hand() -> None:
    options = {"kernel_size": 3, "mixer_expansion": 1.5, "mixer_bias": True, "activation": "relu"}
    module = MIXERS["separable_conv"].load()(site(**options))
    x = torch.randn(5, 4, 2, 3)
    wide = F.conv2d(x, module.pwconv1.weight[:, :, None, None], module.pwconv1.bias).relu()
    assert wide.shape[1] == 6
    deep = F.conv2d(wide, module.dwconv.weight, module.dwconv.bias, padding=1, groups=6)
    expected = F.conv2d(deep, module.pwconv2.weight[:, :, None, None], module.pwconv2.bias)
    torch.testing.assert_close(module(x), expected)


def test_fourier_by_hand() -> None:
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64)
    mixed = MIXERS["fourier"].load()(site())(x)
    expected = 0.0
    for index in torch.cartesian_prod(torch.arange(4), torch.arange(2), torch.arange(3)):
        at = sum(i * n / size for i, n, size in zip(index.tolist(), (1, 1, 2), (4, 2, 3), strict=True))
        expected += x[0, index[0], index[1], index[2]].item() * math.cos(-2 * math.pi * at)
    assert mixed[0, 1, 1, 2].item() == pytest.approx(expected / math.sqrt(24), abs=1e-5)
    torch.testing.assert_close(mixed[0, 0, 0, 0], x.sum() / math.sqrt(24), rtol=0, atol=1e-5)


def test_shift_by_hand() -> None:
    x = torch.arange(1.0, 7).view(1, 1, 2, 3).expand(1, 5, 2, 3)
    left, right, up, down, rest = MIXERS["shift"].load()(site(dim=5))(x)[0]
    assert left.tolist() == [[2, 3, 0], [5, 6, 0]]
    assert right.tolist() == [[0, 1, 2], [0, 4, 5]]
    assert up.tolist() == [[4, 5, 6], [0, 0, 0]]
    assert down.tolist() == [[0, 0, 0], [1, 2, 3]]
    assert rest.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("relu", lambda x: max(x, 0.0)),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("star_relu", lambda x: 1.5 * max(x, 0.0) ** 2 - 0.25),
        ("squared_relu", lambda x: max(x, 0.0) ** 2),
    ],
)
def test_activation_by_hand(name: str, expected: Any) -> None:
    module, _ = activation_case(name)
    for key, parameter in module.named_parameters():
        nn.init.constant_(parameter, {"scale": 1.5, "bias": -0.25}[key])
    values = [-3.0, -0.5, 0.0, 0.7, 2.0]
    assert module(torch.tensor(values)).tolist() == pytest.approx([expected(x) for x in values], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "over"), [("layer_norm", (1,)), ("rms_norm", (1,)), ("batch_norm", (0, 2, 3)), ("affine", None)]
)
def test_norm_by_hand(name: str, over: tuple[int, ...] | None) -> None:
    module, dim = norm_case(name)
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = 3 * torch.randn(BATCH, dim, HEIGHT, WIDTH, dtype=torch.float64) + 2
    weight, bias = module.weight[:, None, None], getattr(module, "bias", None)
    if over is None:
        normed = x
    elif name == "rms_norm":
        normed = x / (x.square().mean(over, keepdim=True) + 1e-5).sqrt()
    else:
        normed = (x - x.mean(over, keepdim=True)) / (x.var(over, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = normed * weight + (0 if bias is None else bias[:, None, None])
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


def test_identity_is_its_input() -> None:
    module, dim = mixer_case("identity")
    x = torch.randn(BATCH, dim, HEIGHT, WIDTH)
    assert torch.equal(module(x), x)


def test_modified_layer_norm_by_hand() -> None:
    torch.manual_seed(0)
    norm = ModifiedLayerNorm(11, 1e-3, True).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 * torch.randn(BATCH, 11, HEIGHT, WIDTH, dtype=torch.float64) + 2
    for sample, normed in zip(x, norm(x), strict=True):
        values = sample.flatten().tolist()
        mean = math.fsum(values) / len(values)
        variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
        expected = (sample - mean) / math.sqrt(variance + 1e-3)
        expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(normed, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm(x), F.group_norm(x, 1, norm.weight, norm.bias, 1e-3))


def test_no_norm_is_its_input() -> None:
    module, dim = norm_case("none")
    x = torch.randn(BATCH, dim, HEIGHT, WIDTH)
    assert torch.equal(module(x), x)


# ---------------------------------------------------------------------------------------------------------------------
# Block and head


def block_of(**model: Any) -> tuple[MetaFormerBlock, Tensor]:
    """The first block of a model with weights that are not those of the start, and an input for it."""
    torch.manual_seed(2)
    net = build_net(spec_of(model_settings(**model)))
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.5 if "norm" in name else 0.2, std=0.3)
    block = net.stages[0].blocks[0]
    return block, torch.randn(BATCH, 5, HEIGHT, WIDTH)


def mlp_by_hand(block: MetaFormerBlock, x: Tensor) -> Tensor:
    """1 x 1 convolutions, as the authors write them."""
    fc1, fc2 = block.mlp.fc1, block.mlp.fc2
    hidden = F.gelu(F.conv2d(x, fc1.weight[:, :, None, None], fc1.bias))
    return F.conv2d(hidden, fc2.weight[:, :, None, None], fc2.bias)


def norm_by_hand(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return F.group_norm(x, 1, norm.weight, norm.bias, 1e-5)


def pool_by_hand(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x


def scale(layer: ChannelScale, x: Tensor) -> Tensor:
    return layer.scale[:, None, None] * x


def test_block_is_the_sum_of_the_paper() -> None:
    block, x = block_of()
    y = x + scale(block.layer_scale1, pool_by_hand(norm_by_hand(block.norm1, x)))
    z = y + scale(block.layer_scale2, mlp_by_hand(block, norm_by_hand(block.norm2, y)))
    torch.testing.assert_close(block(x), z)


def test_block_without_residual_is_the_branches_alone() -> None:
    block, x = block_of(residual=False)
    y = mlp_by_hand(block, norm_by_hand(block.norm2, pool_by_hand(norm_by_hand(block.norm1, x))))
    torch.testing.assert_close(block(x), y)
    assert not [name for name, _ in block.named_parameters() if "scale" in name]


def test_block_without_channel_mlp_is_its_first_half() -> None:
    block, x = block_of(channel_mlp=False)
    y = x + scale(block.layer_scale1, pool_by_hand(norm_by_hand(block.norm1, x)))
    torch.testing.assert_close(block(x), y)
    assert {name for name, _ in block.named_parameters()} == {"norm1.weight", "norm1.bias", "layer_scale1.scale"}


def test_head_is_norm_then_mean_then_linear() -> None:
    torch.manual_seed(3)
    head = build_net(spec_of(model_settings())).head
    nn.init.normal_(head.norm.weight)
    nn.init.normal_(head.fc.bias)
    x = torch.randn(BATCH, 7, HEIGHT, WIDTH)
    expected = norm_by_hand(head.norm, x).mean((2, 3)) @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.7])
def test_stochastic_depth_draws_as_timm_does(rate: float) -> None:
    module = StochasticDepth(rate)
    x = torch.randn(17, 11, HEIGHT, WIDTH)
    torch.manual_seed(5)
    ours = module(x)
    torch.manual_seed(5)
    assert torch.equal(ours, timm.layers.drop_path(x, rate, training=True))
    kept = ours.flatten(1).abs().sum(1) > 0
    assert kept.all() if rate == 0 else 0 < kept.sum() < 17
    assert torch.equal(module.eval()(x), x)


def test_stochastic_depth_grows_linearly_over_all_blocks() -> None:
    net = build_net(spec_of(model_settings(depths=[2, 1, 3, 1], dims=[5, 7, 11, 13], drop_path=0.3)))
    rates = [module.rate for module in net.modules() if isinstance(module, StochasticDepth)]  # two a block
    assert rates == pytest.approx([0.3 * block / 6 for block in range(7) for _ in range(2)])


# ---------------------------------------------------------------------------------------------------------------------
# The whole model


def trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def test_model_gives_finite_logits(model: tuple[nn.Module, Tensor]) -> None:
    net, images = model
    assert net(images).shape == (BATCH, 10)
    assert net(images).isfinite().all()
    assert net(torch.zeros_like(images)).isfinite().all()


def test_model_passes_a_gradient_to_each_parameter(model: tuple[nn.Module, Tensor]) -> None:
    net, images = model
    F.cross_entropy(net(images), torch.arange(BATCH)).backward()
    for name, parameter in trained(net):
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    # In training BatchNorm takes out what a bias before it adds, so whether a gradient is there is seen in evaluation.
    net.eval().zero_grad()
    F.cross_entropy(net(images), torch.arange(BATCH)).backward()
    for name, parameter in trained(net):
        # Pooling minus its input takes out what is the same everywhere: the bias of the norm before it does nothing.
        if not name.endswith("norm1.bias"):
            assert parameter.grad.abs().max() > 0, name


def test_model_gives_a_sample_alone_what_it_gives_it_in_a_batch(model: tuple[nn.Module, Tensor]) -> None:
    net, images = model
    net.eval()
    with torch.no_grad():
        alone = torch.cat([net(image[None]) for image in images])
        torch.testing.assert_close(alone, net(images))


def test_model_does_not_depend_on_the_memory_format(model: tuple[nn.Module, Tensor]) -> None:
    net, images = model
    net.eval()
    with torch.no_grad():
        expected = net(images)
        net = net.to(memory_format=torch.channels_last)
        torch.testing.assert_close(net(images.contiguous(memory_format=torch.channels_last)), expected)


def test_model_sees_the_whole_image() -> None:
    # Stride and padding lose no border: each pixel of an image whose side is no multiple of the strides moves a logit.
    net = build_net(spec_of(model_settings())).eval()
    images = torch.randn(1, 1, 11, 11, requires_grad=True)
    net(images)[0, 0].backward()
    assert (images.grad != 0).all()


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_says_rightly_whether_it_mixes(name: str) -> None:
    torch.manual_seed(0)
    module, dim = mixer_case(name)
    x = torch.randn(1, dim, HEIGHT, WIDTH, requires_grad=True)
    module.eval()(x)[0, :, 2, 3].sum().backward()
    elsewhere = x.grad.abs().sum((0, 1))
    elsewhere[2, 3] = 0
    assert bool(elsewhere.max() > 0) == MIXERS[name].mixes


# ---------------------------------------------------------------------------------------------------------------------
# The start


def test_linear_layers_start_from_a_normal_of_002_and_zero_bias() -> None:
    net = build_net(spec_of({"model.size": "t12"}, seed=1))
    linear = {name: module for name, module in net.named_modules() if isinstance(module, nn.Linear)}
    assert len(linear) == 25  # two in each of 12 blocks, and the head
    for name, module in linear.items():
        values = module.weight.flatten()
        assert module.bias.abs().max() == 0, name
        # Five standard deviations of each estimate for n normal numbers.
        n = len(values)
        assert abs(values.mean()) < 5 * 0.02 / n**0.5, name
        assert abs(values.std() / 0.02 - 1) < 5 / (2 * n) ** 0.5, name
        beyond = (values.abs() > 0.04).float().mean()  # 4.55 % of a normal, none of a uniform of this spread
        assert abs(beyond - 0.0455) < 5 * (0.0455 * 0.9545 / n) ** 0.5, name


def test_embeddings_start_from_the_default_of_pytorch() -> None:
    net = build_net(spec_of({"model.size": "t12"}, seed=1))
    convolutions = [net.stem.conv, *(stage.downsample.conv for stage in net.stages[1:])]
    assert len(convolutions) == 4
    for conv in convolutions:
        bound = 1 / math.sqrt(conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1])  # kaiming uniform, a = √5
        for values in (conv.weight, conv.bias):
            assert values.abs().max() <= bound
            assert values.abs().max() > 0.9 * bound
        n = conv.weight.numel()
        assert abs(conv.weight.std() / (bound / 3**0.5) - 1) < 5 / n**0.5


def test_norms_start_as_they_are_and_scales_at_their_value() -> None:
    net = build_net(spec_of(model_settings(layer_scale=1e-6)))
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            assert (module.weight == 1).all() and (module.bias == 0).all()
            assert module.eps == 1e-5
        if isinstance(module, ChannelScale):
            assert (module.scale == torch.tensor(1e-6)).all()


def test_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first = build_net(spec_of(model_settings(), seed=3)).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state), "building a model moved the global generator"
    torch.manual_seed(8)
    second = build_net(spec_of(model_settings(), seed=3)).state_dict()
    other = build_net(spec_of(model_settings(), seed=4)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("stem.conv.weight", "stages.1.blocks.1.mlp.fc2.weight", "head.fc.weight"):
        assert not torch.equal(first[name], other[name]), name


def test_parts_differ_where_the_spec_says_so() -> None:
    settings = model_settings(token_mixer=["pooling", "identity"], pool_size=[5, None])
    net = build_net(spec_of(settings))
    assert isinstance(net, MetaFormer)
    assert net.stages[0].blocks[0].token_mixer.pool.kernel_size == 5
    assert {type(block.token_mixer).__name__ for block in net.stages[1].blocks} == {"Identity"}


@pytest.mark.parametrize("mixer", [name for name, part in MIXERS.items() if part.fixed_resolution])
def test_what_fits_one_resolution_says_so(mixer):
    net = build_net(spec_of({"model.token_mixer": mixer})).eval()
    with pytest.raises(ValueError, match="was built for a map of 16 x 16, not 20 x 20: it fits one resolution"):
        net(torch.zeros(1, 1, 20, 20))
