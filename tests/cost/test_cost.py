"""Multiply-adds by hand and against torch's own counter; nothing is left out unless it is declared."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from specs import build_net, spec_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import metaformer_ablate.models.build
from metaformer_ablate.cost.cost import count, macs_at_224
from metaformer_ablate.cost.counting import DECLARED_UNCOUNTED, count_model, open_operators
from metaformer_ablate.cost.speed import measure_speed
from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.system.memory import peak_memory, start_peak_memory

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"model.depths": [1, 2], "model.dims": [6, 10], "data.image_size": 11, "model.head_dim": 2}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "metaformer_ablate" / "costs"


def counted(settings: dict[str, Any]) -> tuple[RunSpec, Any]:
    spec = spec_of({**SMALL, **settings})
    return spec, count_model(build_net(spec), (1, spec.data.image_size, spec.data.image_size))


# ---------------------------------------------------------------------------------------------------------------------
# By hand


def test_a_small_poolformer_by_hand() -> None:
    _, cost = counted({})
    # Maps of 11 x 11 and 6 x 6. Stem and down-sampling 3 x 3; an MLP of ratio 4 in each block; ten classes.
    convolutions = 121 * 6 * 1 * 9 + 36 * 10 * 6 * 9
    linear = 121 * 2 * 6 * 24 + 2 * (36 * 2 * 10 * 40) + 10 * 10
    norms = 5 * (2 * 121 * 6 + 4 * 36 * 10 + 36 * 10)
    assert cost.macs_by_operator == {"conv": convolutions, "linear": linear, "group_norm": norms}
    assert cost.macs == convolutions + linear + norms
    stem, between = 6 * 9 + 6, 10 * 6 * 9 + 10
    blocks = sum(2 * 2 * dim + 2 * dim + 2 * 4 * dim * dim + 4 * dim + dim for dim in (6, 10, 10))
    assert cost.params == stem + between + blocks + 2 * 10 + 10 * 10 + 10
    assert cost.frozen_params == 0
    assert cost.uncounted["aten::avg_pool2d"] == 3
    assert cost.uncounted["aten::gelu"] == 3


def test_additions_of_pooling_by_hand() -> None:
    # A 3 x 3 window on a line of n positions has 2 + 3 (n - 2) + 2 entries inside it; the last of them is the minus.
    for size, entries in ((3, lambda n: 3 * n - 2), (5, lambda n: 5 * n - 6)):
        _, cost = counted({"model.pool_size": size})
        assert cost.pooling_additions == 6 * entries(11) ** 2 + 2 * 10 * entries(6) ** 2
        assert cost.pooling_bytes == 5 * 4 * (6 * 121 + 2 * 10 * 36)
    _, none = counted({"model.token_mixer": "identity"})
    assert (none.pooling_additions, none.pooling_bytes) == (0, 0)


def test_outputs_of_products_by_hand() -> None:
    _, cost = counted({})
    # What convolutions and linear layers put out: stem, down-sampling, hidden and output of each MLP, logits.
    assert cost.activations == 6 * 121 + 10 * 36 + 121 * (24 + 6) + 2 * 36 * (40 + 10) + 10


def test_frozen_parameters_are_counted_apart() -> None:
    _, cost = counted({"model.token_mixer": ["identity", "random"]})
    assert cost.frozen_params == 2 * 36 * 36
    _, without = counted({"model.token_mixer": "identity"})
    assert cost.params == without.params
    products = {name: n for name, n in cost.macs_by_operator.items() if "mat" in name or "mm" in name}
    assert sum(products.values()) == 2 * 10 * 36 * 36


def test_norms_without_bias_count_as_nothing() -> None:
    # MetaFormer Baselines counts no norm, and its norms have no bias.
    for norm in ("mln", "batch_norm"):
        _, counted_norm = counted({"model.norm": norm})
        _, cost = counted({"model.norm": norm, "model.norm_bias": False})
        name = {"mln": "group_norm", "batch_norm": "batch_norm"}[norm]
        assert name in counted_norm.macs_by_operator and name not in cost.macs_by_operator
        assert cost.uncounted[f"aten::{name}"] == 7
    _, cost = counted({"model.norm": "layer_norm"})
    assert set(cost.macs_by_operator) == {"conv", "linear"} and cost.uncounted["aten::layer_norm"] == 7


def test_counting_leaves_the_model_as_it_was() -> None:
    net = build_net(spec_of(SMALL)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first = count_model(net, (1, 11, 11))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert count_model(net.eval(), (1, 11, 11)) == first
    assert not net.training


# ---------------------------------------------------------------------------------------------------------------------
# Against torch's counter

MODELS = [
    *({"model.token_mixer": name} for name in MIXERS),
    *({"model.norm": name} for name in NORMS),
    *({"model.activation": name} for name in ACTIVATIONS),
    {"model.residual": False},
    {"model.channel_mlp": False},
    {"model.name": "caformer_s18", "data.image_size": 32},
    {"model.name": "poolformerv2_s12", "data.image_size": 32},
]


@pytest.mark.parametrize("settings", MODELS, ids=lambda settings: " ".join(map(str, settings.values())))
def test_every_part_is_counted_as_torch_counts_it(settings: dict[str, Any]) -> None:
    spec, cost = counted(settings) if "model.name" not in settings else named(settings)
    # Attention as plain matrix products, which every version of torch counts.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        build_net(spec).eval()(torch.zeros(1, 1, spec.data.image_size, spec.data.image_size))
    norms = sum(n for name, n in cost.macs_by_operator.items() if name.endswith("_norm"))
    assert cost.macs - norms == counter.get_total_flops() / 2 > 0
    transform = ["aten::fft_fftn"] if settings.get("model.token_mixer") == "fourier" else []
    assert open_operators(cost.uncounted) == transform


def named(settings: dict[str, Any]) -> tuple[RunSpec, Any]:
    spec = spec_of(settings)
    return spec, count_model(build_net(spec), (1, spec.data.image_size, spec.data.image_size))


class Attention(nn.Module):
    """Two heads of 8, 35 tokens, fused or written out."""

    def __init__(self, fused: bool):
        super().__init__()
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        query = key = value = x.flatten(2).view(1, 2, 8, 35).transpose(2, 3)  # [1, heads, N, D]
        if self.fused:
            return F.scaled_dot_product_attention(query, key, value)
        return torch.matmul((torch.matmul(query, key.transpose(-2, -1)) * 8**-0.5).softmax(-1), value)


def test_fused_attention_counts_as_its_products() -> None:
    fused, explicit = (count_model(Attention(fused), (16, 5, 7)).macs for fused in (True, False))
    assert fused == explicit == 2 * 2 * 35 * 35 * 8


def test_attention_with_other_keys_and_values() -> None:
    class Cross(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x[:, :, :3], x[:, :, :5], x[:, :, :5, :4])

    # 2 heads, 3 queries, 5 keys of 7, values of 4.
    assert count_model(Cross(), (2, 11, 7)).macs == 2 * 3 * 5 * (7 + 4)


# ---------------------------------------------------------------------------------------------------------------------
# What is not counted has to be declared


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        (lambda x: x.cumsum(-1), "aten::cumsum"),
        (lambda x: torch.linalg.inv(x @ x.mT + torch.eye(5)), "aten::linalg_inv_ex"),
        (lambda x: torch.fft.rfft(x).abs(), "aten::fft_rfft"),
        (lambda x: x.sort(-1).values, "aten::sort"),
    ],
)
def test_with_an_operator_that_nobody_declared_macs_are_a_lower_bound(operator: Any, name: str) -> None:
    class Mixer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return operator(x)

    found = open_operators(count_model(Mixer(), (2, 5, 7)).uncounted)
    assert name.removesuffix("_ex") in {each.removesuffix("_ex") for each in found}


def test_no_product_is_declared_as_uncounted() -> None:
    products = "mm bmm addmm matmul linear einsum _convolution conv2d scaled_dot_product_attention baddbmm".split()
    assert not {f"aten::{name}" for name in products} & DECLARED_UNCOUNTED


# ---------------------------------------------------------------------------------------------------------------------
# The cache


def test_a_count_is_remembered(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(SMALL)
    first = count(spec)
    assert len(list(own_cache.iterdir())) == 1

    def refuse(*of: Any, **options: Any) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr(metaformer_ablate.models.build, "build_model", refuse)
    assert count(spec) == first
    # What changes no count asks for none.
    same = {"train.lr": 0.5, "train.threads": 2, "model.drop_path": 0.2, "model.layer_scale": 0.3, "data.flip": True}
    assert count(spec_of({**SMALL, **same}, seed=5)) == first


def test_what_changes_a_count_is_counted_apart(own_cache: Path) -> None:
    counts = [
        count(spec_of({**SMALL, **settings}))
        for settings in (
            {},
            {"model.mlp_ratio": 3},
            {"model.layer_scale": None},
            {"model.norm": "none"},
            {"data.image_size": 13},
            {"data.name": "cifar10"},
            {"data.name": "cifar100"},
            {"model.stem.kernel": 5, "model.stem.padding": 2},
            {"model.residual": False},
            {"model.token_mixer": "depthwise_conv"},
            {"model.token_mixer": "depthwise_conv", "model.kernel_size": 5},
        )
    ]
    assert len({json.dumps([c.params, c.macs, sorted(c.uncounted.items())]) for c in counts}) == len(counts)
    assert len(list(own_cache.iterdir())) == len(counts)
    assert count(spec_of(SMALL), 13) == counts[4] != counts[0]


def test_a_broken_cache_is_counted_again(own_cache: Path) -> None:
    spec = spec_of(SMALL)
    first = count(spec)
    (path,) = own_cache.iterdir()
    for text in ("", "{}", "[]", '{"params": 1', '{"params": 1, "wrong": 2}'):
        path.write_text(text)
        assert count(spec) == first


def test_a_second_count_loads_no_torch(own_cache: Path) -> None:
    from metaformer_ablate.spec.plan import plan

    count(plan("pooling_size").specs["pool3"])
    program = (
        "import sys; from metaformer_ablate.cost.cost import count; from metaformer_ablate.spec.plan import plan; "
        "print(count(plan('pooling_size').specs['pool3']).macs); "
        "print([name for name in ('torch', 'fvcore', 'numpy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    macs, loaded = done.stdout.splitlines()
    assert int(macs) == count(plan("pooling_size").specs["pool3"]).macs
    assert loaded == "[]"


# ---------------------------------------------------------------------------------------------------------------------
# At 224, and on this machine


def test_macs_at_224_are_those_of_the_model_sized_for_it() -> None:
    spec = spec_of({"model.size": "s12"}, recipe="imagenet")
    assert macs_at_224(spec) == count(spec).macs
    small = spec_of(SMALL)
    assert macs_at_224(small) == count(small, 224).macs > 100 * count(small).macs
    # At 224 the stem of stride 1 leaves 50,176 tokens: a matrix of 2.5 G numbers, which nobody means.
    assert macs_at_224(spec_of({**SMALL, "model.token_mixer": "random"})) is None


def test_speed_and_memory_are_measured() -> None:
    speed = measure_speed(spec_of(SMALL), CPU, batch_size=4, seconds=0.05)
    assert speed.images_per_second > 0
    assert speed.peak_memory_bytes is None or speed.peak_memory_bytes >= 0
    assert speed.batch_size == 4
    assert speed.threads == torch.get_num_threads()
    assert speed.device == device_name(CPU) != ""


def test_a_larger_model_is_slower() -> None:
    small = measure_speed(spec_of(SMALL), CPU, batch_size=4, seconds=0.05)
    large = measure_speed(spec_of({**SMALL, "model.dims": [128, 256]}), CPU, batch_size=4, seconds=0.05)
    assert small.images_per_second > 1.5 * large.images_per_second


def test_peak_memory_sees_what_was_used_in_between() -> None:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this system does not start the peak again")
    before = start_peak_memory(CPU)
    with mmap.mmap(-1, 64 * 2**20) as block:  # not from the heap, where enough may be free
        block.write(bytes(len(block)))
    after = peak_memory(CPU)
    assert before is not None and after is not None
    assert after - before > 50 * 2**20
