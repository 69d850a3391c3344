"""The benchmark of training: its sides are the same net, each trains, and what it prints is whole."""

from __future__ import annotations

import os

import pytest
import torch
from specs import build_net

from benchmarks import training
from benchmarks.__main__ import BENCHMARKS
from benchmarks.training import AUTHORS_CODE, SIDES, Case, Setting, authors_net, measure, step_of, timm_net

SMALL = Case("t5", "fashion_mnist", 4)
CASES = (SMALL, Case("t5", "digits", 4), Case("t12", "cifar10", 2), Case("s12", "imagenet", 2))
here = pytest.mark.skipif(not os.environ.get(AUTHORS_CODE), reason=f"{AUTHORS_CODE} names no checkout")
NAMES = [pytest.param(name, marks=[here] if name == "authors" else []) for name in SIDES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.size + case.recipe)
def test_timms_net_is_ours(case: Case) -> None:
    spec = case.spec()
    ours, theirs = build_net(spec).eval(), timm_net(spec).eval()
    weights = ours.state_dict()
    theirs.load_state_dict({name: weights[name].reshape(p.shape) for name, p in theirs.state_dict().items()})
    with torch.no_grad():
        for name, p in ours.named_parameters():  # so that every block shows; timm's has copies
            if "layer_scale" in name:
                p.fill_(0.3)
                theirs.get_parameter(name).fill_(0.3)
        images = torch.randn(case.batch, ours.stem.conv.in_channels, spec.data.image_size, spec.data.image_size)
        features = ours.forward_features(images)
        torch.testing.assert_close(features, theirs.forward_features(images), rtol=1e-4, atol=1e-4)


@here
def test_the_authors_net_has_our_weights() -> None:
    spec = SMALL.spec()
    shapes = [sorted(p.numel() for p in net.parameters()) for net in (build_net(spec), authors_net(spec))]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", NAMES)
def test_each_side_trains_and_infers(name: str) -> None:
    torch.manual_seed(0)
    side = SIDES[name][0](SMALL.spec())
    before = [p.detach().clone() for p in side.net.parameters()]
    step_of(side, SMALL.spec(), Setting(), "inference")()
    assert all(torch.equal(p, old) for p, old in zip(side.net.parameters(), before, strict=True))
    step_of(side, SMALL.spec(), Setting(), "training")()
    moved = [not torch.equal(p, old) for p, old in zip(side.net.parameters(), before, strict=True)]
    assert all(moved)
    last = next(p for p in side.net.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1)
    assert last.is_contiguous(memory_format=torch.channels_last) == side.channels_last


def test_sides_differ_in_optimizer_and_memory_format_as_they_say() -> None:
    spec = SMALL.spec()
    sides = {name: build(spec) for name, (build, _) in SIDES.items() if name != "authors"}
    fused = {name: bool(side.optimizer().defaults["fused"]) for name, side in sides.items()}
    assert fused == {"ours": True, "timm": False, "timm_like_ours": True}


@pytest.mark.slow
@pytest.mark.parametrize("work", ["training", pytest.param("inference", marks=pytest.mark.fuzz)])
def test_measurement_has_a_line_for_each_side(work: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AUTHORS_CODE, raising=False)
    assert BENCHMARKS[work] is getattr(training, work)
    lines = measure(work, cases=[(SMALL, Setting())], rounds=1, seconds=0)
    assert [line["side"] for line in lines] == [meaning for _, meaning in SIDES.values()]
    assert lines[-1]["ms"] == "not measured: POOLFORMER_CODE is not set"
    for line in lines[:-1]:
        assert line["times_ours"] > 0 and line["ms"] > 0 and line["peak_mib"] >= 0  # type: ignore[operator]
        assert line["case"] == "t5 at 28 x 28 (fashion_mnist)" and line["batch"] == 4
    assert lines[0]["times_ours"] == 1
