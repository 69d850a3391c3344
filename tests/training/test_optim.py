"""Optimisers against timm's factory, schedules against torch's, timm's and mmcv's formulas, what is decayed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pytest
import torch
from specs import spec_of
from torch import Tensor, nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.cache import cache_dir
from metaformer_ablate.training import optimizers
from metaformer_ablate.training.optim import decayed_names, learning_rate, make_optimizer
from metaformer_ablate.training.optimizers import Optimizer, all_optimizers, ask_timm, find_optimizer
from metaformer_ablate.training.spec import TrainSpec


def train_of(settings: dict[str, Any]) -> TrainSpec:
    """The section `train` of a run of digits: 1,442 images."""
    return spec_of({f"train.{key}": value for key, value in settings.items()}).train


class Net(nn.Module):
    """A convolution, a norm, a linear layer and a parameter that the net itself exempts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.GroupNorm(1, 4)
        self.fc = nn.Linear(4, 5)
        self.token = nn.Parameter(torch.zeros(1, 4))

    def no_weight_decay(self) -> set[str]:
        return {"token"}

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(x)).mean((2, 3)) + self.token)


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


IMAGES = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)  # as TaskModule does: some optimisers draw
        optimizer.zero_grad()
        model(IMAGES).square().sum().backward()
        optimizer.step()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# ---------------------------------------------------------------------------------------------------------------------
# Optimisers


@pytest.fixture
def no_compiler() -> Iterator[None]:
    """timm's kron compiles its parts where it can, which takes most of a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize("name", all_optimizers())
def test_an_optimizer_is_that_of_timms_factory(name: str, no_compiler: None) -> None:
    """Bit for bit over five steps, with timm's defaults and groups; and it goes on exactly from a checkpoint."""
    from timm.optim import create_optimizer_v2, param_groups_weight_decay

    train = train_of({"optimizer": name, "lr": 1e-2, "weight_decay": 0.1})
    ours, theirs, resumed = net(), net(), net()
    optimizer = make_optimizer(ours, train)
    take_steps(ours, optimizer, range(3))
    saved = io.BytesIO()
    torch.save({"net": ours.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    take_steps(ours, optimizer, range(3, 5))
    assert weights(ours).isfinite().all() and not torch.equal(weights(ours), weights(theirs))

    fused = {"fused": True} if name == "adamw" else {}
    # What is decayed comes first with us: some optimisers add up or draw over all parameters in their order.
    groups = param_groups_weight_decay(theirs, 0.1, no_weight_decay_list=theirs.no_weight_decay())[::-1]
    take_steps(theirs, create_optimizer_v2(groups, name, lr=1e-2, **fused), range(5))
    assert torch.equal(weights(ours), weights(theirs))

    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    resumed.load_state_dict(state["net"])
    optimizer = make_optimizer(resumed, train)
    optimizer.load_state_dict(state["optimizer"])
    take_steps(resumed, optimizer, range(3, 5))
    assert torch.equal(weights(resumed), weights(ours))


def test_arguments_reach_the_optimizer() -> None:
    sgd = make_optimizer(net(), train_of({"optimizer": "momentum", "optimizer_args": {"momentum": 0.5}}))
    assert type(sgd) is torch.optim.SGD
    assert {group["momentum"] for group in sgd.param_groups} == {0.5}
    assert {group["nesterov"] for group in sgd.param_groups} == {False}
    lamb = make_optimizer(net(), train_of({"optimizer": "lamb", "betas": [0.8, 0.9], "eps": 1e-3}))
    assert {(group["betas"], group["eps"]) for group in lamb.param_groups} == {((0.8, 0.9), 1e-3)}
    adamw = make_optimizer(net(), train_of({"optimizer_args": {"amsgrad": True}}))
    assert type(adamw) is torch.optim.AdamW and adamw.defaults["amsgrad"] and adamw.defaults["fused"]
    adan = make_optimizer(net(), train_of({"optimizer": "adan", "optimizer_args": {"betas": [0.9, 0.8, 0.7]}}))
    assert adan.defaults["betas"] == (0.9, 0.8, 0.7)


def test_what_an_optimizer_does_not_read_is_null_and_its_own_defaults_are_in_the_spec() -> None:
    assert (train_of({}).betas, train_of({}).eps) == ((0.9, 0.999), 1e-8)
    sgd, lion, lamb = (train_of({"optimizer": name}) for name in ("sgd", "lion", "lamb"))
    assert (sgd.betas, sgd.eps) == (None, None)
    assert (lion.betas, lion.eps) == ((0.9, 0.99), None)
    assert (lamb.betas, lamb.eps) == ((0.9, 0.999), 1e-6)


def test_what_is_known_of_optimizers_is_what_timm_says() -> None:
    asked = ask_timm()
    assert asked == all_optimizers()
    for name, known in optimizers._KNOWN.items():
        assert known == asked[name], name
    assert {"sgd", "lamb", "lion", "muon", "adafactor", "kron"} <= asked.keys()
    assert not {"adahessian", "fusedadam", "bnbadam"} & asked.keys()


@pytest.mark.parametrize("content", ["", "[]", '{"sgd": {"betas": 3}}', None])
def test_a_damaged_cache_is_made_again(content: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"one": Optimizer((0.5, 0.25), 1e-3, ("a", "b")), "two": Optimizer(None, None, ())}
    monkeypatch.setattr(optimizers, "ask_timm", lambda: made)
    monkeypatch.setattr(optimizers, "_READING", f"test {content}")
    all_optimizers.cache_clear()
    before = set((cache_dir() / "optimizers").glob("*.json"))
    assert all_optimizers() == made
    (path,) = set((cache_dir() / "optimizers").glob("*.json")) - before
    if content is not None:
        path.write_text(content)
    else:
        monkeypatch.setattr(optimizers, "ask_timm", lambda: pytest.fail("it is in the cache"))
    all_optimizers.cache_clear()
    assert {name: asdict(one) for name, one in all_optimizers().items()} == {
        name: asdict(one) for name, one in made.items()
    }
    assert find_optimizer("two") == made["two"]
    path.unlink()
    all_optimizers.cache_clear()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"optimizer": "sgdd"}, "train.optimizer is 'sgdd' .* unknown optimizer 'sgdd' .did you mean 'sgd'"),
        ({"optimizer": "adahessian"}, "unknown optimizer 'adahessian'"),
        ({"optimizer": "sgd", "optimizer_args": {"momentun": 1}}, "of sgd 'momentun' .did you mean 'momentum'"),
        ({"optimizer": "sgd", "optimizer_args": {"lr": 1}}, r"allowed: dampening, .* \(set train.lr\)"),
        ({"optimizer_args": {"betas": [0.9, 0.9]}}, r"unknown argument of adamw 'betas'; .* \(set train.betas\)"),
        ({"optimizer_args": {"amsgrad": {"a": 1}}}, "train.optimizer_args is .*; allowed: a mapping of"),
        ({"optimizer_args": [1]}, "train.optimizer_args is .*; allowed: a mapping of"),
        ({"optimizer_args.amsgrad": True}, "train.optimizer_args is set as a whole, to a mapping of"),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        train_of(settings)


def test_a_value_that_the_optimizer_refuses_is_told() -> None:
    train = train_of({"optimizer": "sgd", "optimizer_args": {"momentum": -1.0}})
    with pytest.raises(RequestError, match=r"train.optimizer is sgd, .*'momentum': -1.0.*Invalid momentum value: -1.0"):
        make_optimizer(net(), train)


# ---------------------------------------------------------------------------------------------------------------------
# What is decayed

MATRICES = {"conv.weight", "fc.weight"}
EVERYTHING = {"conv.weight", "conv.bias", "norm.weight", "norm.bias", "fc.weight", "fc.bias", "token"}


@pytest.mark.parametrize(
    ("decay_on", "decayed"), [(None, MATRICES), ("matrices", {*MATRICES, "token"}), ("all", EVERYTHING)]
)
def test_what_is_decayed(decay_on: str | None, decayed: set[str]) -> None:
    assert decayed_names(net(), decay_on) == decayed


def test_a_part_of_a_net_says_what_it_exempts() -> None:
    whole = nn.ModuleDict({"body": nn.Sequential(net()), "head": nn.Linear(2, 2)})
    assert decayed_names(whole) == {"body.0.conv.weight", "body.0.fc.weight", "head.weight"}


def test_decay_moves_what_is_decayed_and_nothing_else() -> None:
    """One step of SGD without a gradient leaves (1 - lr * decay) of what is decayed."""
    for decay_on, decayed in ((None, MATRICES), ("all", EVERYTHING)):
        model = net()
        nn.init.ones_(model.token)
        before = {name: p.clone() for name, p in model.named_parameters()}
        settings = {"optimizer": "momentum", "lr": 0.5, "weight_decay": 0.25, "decay_on": decay_on}
        optimizer = make_optimizer(model, train_of(settings), decayed_names(model, decay_on))
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        for name, p in model.named_parameters():
            assert torch.allclose(p, before[name] * (0.875 if name in decayed else 1)), name


# ---------------------------------------------------------------------------------------------------------------------
# Schedules


def rates(settings: dict[str, Any], steps_per_epoch: int) -> list[float]:
    train = train_of(settings)
    return [learning_rate(train, step, steps_per_epoch) for step in range(train.all_steps(steps_per_epoch))]


def torchs(make: Callable[[torch.optim.Optimizer], Any], lr: float, steps: int, per: int = 1) -> list[float]:
    """The rates of a scheduler of torch that is moved on after every `per` steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    found = []
    for step in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % per == 0:
            scheduler.step()
    return found


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_the_step_schedule_is_torchs(unit: str) -> None:
    schedule = {"schedule": "step", "milestones": [8, 11], "schedule_unit": unit}
    ours = rates({**schedule, "epochs": 12, "lr": 1e-4, "warmup_epochs": 0}, 5)
    theirs = torchs(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [8, 11], 0.1), 1e-4, 60, per=5)
    assert ours == pytest.approx(theirs, rel=1e-12)
    halves = rates({**schedule, "epochs": 12, "gamma": 0.5, "lr": 1.0, "warmup_epochs": 0}, 1)
    assert halves == [1.0] * 8 + [0.5] * 3 + [0.25]


def test_milestones_of_steps() -> None:
    ours = rates({"schedule": "step", "milestones": [3, 5], "steps": 7, "lr": 1.0, "warmup_epochs": 0}, 44)
    assert ours == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize("min_lr", [0.0, 1e-5])
def test_the_poly_schedule_is_torchs_and_mmcvs(min_lr: float) -> None:
    settings = {"schedule": "poly", "steps": 40, "lr": 2e-4, "min_lr": min_lr, "warmup_steps": 0}
    ours = rates(settings, 44)
    # mmcv 1.x, PolyLrUpdaterHook.get_lr
    assert ours == pytest.approx([(2e-4 - min_lr) * (1 - i / 40) ** 0.9 + min_lr for i in range(40)], rel=1e-12)
    if not min_lr:
        make = lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 40, 0.9)  # noqa: E731
        assert ours == pytest.approx(torchs(make, 2e-4, 40), rel=1e-9)
    assert rates({**settings, "power": 1}, 44)[20] == pytest.approx((2e-4 + min_lr) / 2)


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_warm_up_in_steps_multiplies_a_step_schedule_as_mmcvs_linear_does(unit: str) -> None:
    """mmcv 1.x, LrUpdaterHook.get_warmup_lr: regular * (1 - (1 - i / steps) * (1 - ratio)); here over a milestone."""
    settings = {"schedule": "step", "milestones": [1, 2], "epochs": 3, "lr": 1e-2, "schedule_unit": unit}
    ours = rates({**settings, "warmup_steps": 8, "warmup_lr": 1e-5}, 5)
    regular = [1e-2] * 5 + [1e-3] * 5 + [1e-4] * 5
    factors = [1 - (1 - i / 8) * (1 - 0.001) for i in range(8)] + [1] * 7
    assert ours == pytest.approx([rate * factor for rate, factor in zip(regular, factors, strict=True)], rel=1e-12)
    assert ours[0] == pytest.approx(1e-5)


def test_the_schedule_of_the_papers_detectors() -> None:
    """12 epochs of 7,330 steps, 500 of warm-up from a thousandth, a tenth after 8 and 11."""
    settings = {"schedule": "step", "milestones": [8, 11], "epochs": 12, "lr": 1e-4}
    train = train_of({**settings, "warmup_epochs": 0}).model_copy(update={"warmup_steps": 500, "warmup_lr": 1e-7})
    per = 7330
    asked = [0, 250, 499, 500, 8 * per - 1, 8 * per, 11 * per, 12 * per - 1]
    expected = [1e-7, 5.005e-5, 9.98002e-5, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6]
    assert [learning_rate(train, step, per) for step in asked] == pytest.approx(expected, rel=1e-9)


def test_warm_up_in_steps_of_the_cosine_is_that_in_epochs() -> None:
    settings = {"epochs": 4, "lr": 1e-2, "warmup_lr": 1e-5, "min_lr": 1e-5}
    assert rates({**settings, "warmup_steps": 10}, 10) == rates({**settings, "warmup_epochs": 1}, 10)


def test_a_length_in_steps_is_that_in_epochs() -> None:
    settings = {"lr": 1e-2, "warmup_epochs": 0.5}
    assert rates({**settings, "steps": 44}, 11) == rates({**settings, "epochs": 4}, 11)
    train = train_of({"steps": 45, "warmup_epochs": 0})
    assert (train.epochs, train.all_steps(11), train.all_epochs(11)) == (None, 45, 5)
    assert train_of({"steps": 44, "warmup_epochs": 0}).all_epochs(11) == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule": "step"}, "train.milestones is None .*allowed with train.schedule=step: .* from 1 to 11 .epochs"),
        ({"schedule": "step", "milestones": [8, 12]}, r"train.milestones is \[8, 12\]"),
        ({"schedule": "step", "milestones": [8, 8]}, r"train.milestones is \[8, 8\]"),
        ({"schedule": "step", "milestones": []}, r"train.milestones is \[\]"),
        ({"schedule": "step", "milestones": [1.5]}, r"train.milestones is \[1.5\] .*a list of rising integers"),
        ({"epochs": 3, "steps": 4}, "set train.epochs or train.steps, not both"),
        ({"warmup_epochs": 3, "warmup_steps": 4}, "set train.warmup_epochs or train.warmup_steps, not both"),
        ({"epochs": None}, "train.epochs is None .*allowed: an integer of at least 1"),
        ({"steps": 500, "warmup_steps": 500}, "warmup_steps is 500 and train.steps is 500; .* fewer warm-up steps"),
        ({"steps": 22}, r"warmup_epochs is 0.5 and train.steps is 22; .*steps \(an epoch has 45\)"),
        ({"epochs": 1, "warmup_steps": 45}, r"warmup_steps is 45 and train.epochs is 1; .*\(an epoch has 45\)"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        train_of(settings)
