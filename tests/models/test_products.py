"""What is faster on a CPU computes the plain definition: outputs and gradients against torch's modules in float64."""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Iterator

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from specs import build_net, spec_of
from torch import Tensor, nn

from metaformer_ablate.models import cpu_ops as products
from metaformer_ablate.models.cpu_ops import Linear, pool_minus_input
from metaformer_ablate.system.memory import retain_freed_memory

FORMATS = (torch.channels_last, torch.contiguous_format)
MAPS = ((1, 1), (2, 2), (4, 4), (7, 7), (16, 16), (3, 11), (14, 5), (29, 31))


def pool_of(size: int) -> nn.AvgPool2d:
    return nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False)


@pytest.fixture(params=[True, False], ids=["convolution", "product"])
def convolutions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Both ways of a linear layer, whatever the CPU of the tests."""
    monkeypatch.setattr(products, "_convolutions_are_faster", lambda: request.param)
    yield request.param


def operators(function: Callable[..., Tensor], *inputs: object) -> set[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        function(*inputs)
    return {event.key for event in seen.key_averages()}


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 11])
@pytest.mark.parametrize("memory_format", FORMATS, ids=["channels_last", "contiguous"])
def test_pooling_is_torchs_pooling_minus_its_input(size: int, memory_format: torch.memory_format) -> None:
    torch.manual_seed(size)
    pool = pool_of(size)
    for height, width in MAPS:
        if size // 2 > max(height, width) + 5:
            continue
        x = torch.randn(2, 3, height, width, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
        upstream = torch.randn_like(x)
        ours, plain = pool_minus_input(x, pool), pool(x) - x
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-13)
        (ours_back,), (plain_back,) = (torch.autograd.grad(y, x, upstream) for y in (ours, plain))
        torch.testing.assert_close(ours_back, plain_back, rtol=0, atol=1e-13)
        single = pool_minus_input(x.detach().float(), pool)
        torch.testing.assert_close(single.double(), plain.detach(), rtol=0, atol=2e-6)
        assert single.dtype == torch.float32


def test_pooling_has_right_first_and_second_derivatives() -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    pool = pool_of(5)
    assert "aten::avg_pool2d" not in operators(lambda x: pool_minus_input(x, pool), x)  # or this tests torch's
    assert torch.autograd.gradcheck(lambda x: pool_minus_input(x, pool), x)
    assert torch.autograd.gradgradcheck(lambda x: pool_minus_input(x, pool), x)


def test_large_windows_are_matrix_products_in_channels_last_alone() -> None:
    x = torch.randn(2, 8, 16, 16)
    last = x.to(memory_format=torch.channels_last)
    for size, images, by_products in ((3, last, False), (5, last, True), (9, last, True), (9, x, False)):
        used = operators(pool_minus_input, images, pool_of(size))
        assert ("aten::avg_pool2d" in used, "aten::bmm" in used) == (not by_products, by_products), size


def test_windows_made_in_inference_serve_training() -> None:
    products._windows.cache_clear()
    x, pool = torch.randn(1, 2, 6, 6).to(memory_format=torch.channels_last), pool_of(5)
    with torch.inference_mode():
        pool_minus_input(x, pool)
    x.requires_grad_()
    pool_minus_input(x, pool).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("shape", [(16, 7, 5), (4, 4, 4, 6), (3, 5, 7), (2, 8), (160, 1), (0, 4)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_are_torchs(convolutions: bool, shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    ours = Linear(shape[-1], 11, bias=bias)
    plain = nn.Linear(shape[-1], 11, bias=bias).double()
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(shape, requires_grad=True)
    upstream = torch.randn(*shape[:-1], 11)
    y, expected = ours(x), plain(x.double())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=2e-6)
    back = torch.autograd.grad(y, [x, *ours.parameters()], upstream)
    inputs = [x, *plain.parameters()]
    for got, want in zip(back, torch.autograd.grad(expected, inputs, upstream.double()), strict=True):
        torch.testing.assert_close(got.double(), want.double(), rtol=0, atol=1e-5)


def test_linear_layers_take_the_way_that_they_are_told(convolutions: bool) -> None:
    x = torch.randn(4, 4, 4, 6)
    assert ("aten::convolution" in operators(Linear(6, 5), x)) == convolutions
    for other in (x[:3, :3, :3], x.transpose(1, 2), x.double()):  # 27 tokens, strides, precision
        assert "aten::convolution" not in operators(Linear(6, 5).to(other.dtype), other)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("size", [3, 5, 9])
def test_gradients_of_a_model_are_those_of_float64(
    convolutions: bool, size: int, memory_format: torch.memory_format
) -> None:
    net = build_net(spec_of({"model.pool_size": size}))
    exact = copy.deepcopy(net).double()
    images, labels = torch.rand(8, 1, 16, 16), torch.arange(8)
    losses = []
    for model, x in ((net, images), (exact, images.double())):
        logits = model.to(memory_format=memory_format)(x.to(memory_format=memory_format))
        loss = nn.functional.cross_entropy(logits, labels)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    largest = max(float(p.grad.abs().max()) for p in exact.parameters())
    for (name, p), q in zip(net.named_parameters(), exact.parameters(), strict=True):
        assert p.grad is not None and q.grad is not None
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-6 * largest, msg=name)


def test_a_trace_knows_nothing_of_it(convolutions: bool) -> None:
    net = build_net(spec_of({"model.pool_size": 5})).eval().to(memory_format=torch.channels_last)
    x = torch.zeros(16, 1, 16, 16).to(memory_format=torch.channels_last)
    counted = FlopCountAnalysis(net, x).unsupported_ops_warnings(False)
    assert set(counted.by_operator()) >= {"linear", "conv"} and not {"bmm", "matmul"} & set(counted.by_operator())
    assert counted.unsupported_ops()["aten::avg_pool2d"] == 5
    exported = torch.export.export(net, (x,)).module()
    names = {str(node.target) for node in exported.graph.nodes}
    assert "aten.linear.default" in names and "aten.avg_pool2d.default" in names and "aten.bmm.default" not in names
    torch.testing.assert_close(exported(x), net(x))


def test_the_compiler_sees_one_graph_of_the_plain_operators(convolutions: bool) -> None:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    net = build_net(spec_of({"model.pool_size": 5})).to(memory_format=torch.channels_last)
    x = torch.rand(16, 1, 16, 16).to(memory_format=torch.channels_last)
    torch.compiler.reset()
    try:
        y = torch.compile(net, backend=backend, fullgraph=True)(x)
    finally:
        torch.compiler.reset()
    assert not any("bmm" in name for name in seen) and sum("conv" in name for name in seen) == 4
    torch.testing.assert_close(y, net(x))


def test_autocast_is_left_to_torch(convolutions: bool) -> None:
    net = build_net(spec_of({"model.pool_size": 5})).to(memory_format=torch.channels_last)
    x = torch.rand(16, 1, 16, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        used = operators(net, x)
        assert net(x).dtype == torch.bfloat16
    assert "aten::bmm" not in used and {"aten::linear", "aten::avg_pool2d"} <= used


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for the GNU C library")
def test_freed_memory_is_kept() -> None:
    """Pages that the system hands out while 64 MiB are freed and taken again."""
    import resource

    def pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            torch.empty(2**24).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    retain_freed_memory()
    pages()
    assert pages() < 2**14  # of 4 KiB: what one of them has
