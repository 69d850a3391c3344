"""timm as the oracle: the model with the same weights, decay groups, schedule, mixed targets and losses."""

from __future__ import annotations

import math

import pytest
import timm.models.metaformer
import timm.optim
import torch
from specs import build_net, spec_of
from timm.data.mixup import FastCollateMixup, mixup_target
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.scheduler import CosineLRScheduler, create_scheduler_v2
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.cost.cost import count
from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.classification.data.augment import Augment, cutmix, mixup
from metaformer_ablate.tasks.classification.module import Classification
from metaformer_ablate.training.optim import learning_rate, weight_decay_groups

SIZES = ("s12", "s24", "s36", "m36", "m48")


def named(size: str, **settings: object) -> RunSpec:
    return spec_of({"model.name": f"poolformer_{size}", **settings}, recipe="imagenet")


def same_in_timm(net: nn.Module, size: str) -> nn.Module:
    """timm's PoolFormer with the weights of ours, by name; its MLP is written as 1 x 1 convolutions."""
    other = getattr(timm.models.metaformer, f"poolformer_{size}")()
    ours, theirs = net.state_dict(), other.state_dict()
    assert set(ours) == set(theirs)
    other.load_state_dict({name: ours[name].reshape(theirs[name].shape) for name in theirs}, assign=True)
    return other.eval()


@pytest.mark.parametrize("size", SIZES)
def test_features_are_those_of_timm_and_logits_those_of_the_authors_head(size: str) -> None:
    net = build_net(named(size)).eval()
    other = same_in_timm(net, size)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(net.forward_features(images), other.forward_features(images), rtol=0, atol=1e-5)
        # At the start LayerScale is 1e-5 or 1e-6, so a block could do anything: let every parameter count, and the
        # image show at the end.
        for name, parameter in net.named_parameters():  # timm's model shares the tensors
            if "layer_scale" in name:
                nn.init.uniform_(parameter, 0.1, 0.3)
            elif parameter.ndim == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
            elif not name.startswith("head"):
                parameter.mul_(3)
        features, theirs = net.forward_features(images), other.forward_features(images)
        torch.testing.assert_close(features, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
        # The authors' head: GroupNorm with one group, mean over positions, linear.
        norm, fc = other.head.norm, other.head.fc
        normed = F.group_norm(theirs, 1, norm.weight, norm.bias, 1e-5)
        logits = F.linear(normed.mean((2, 3)), fc.weight, fc.bias)
        torch.testing.assert_close(net(images), logits, rtol=0, atol=1e-5)
        # timm's own head takes the mean first and normalises over the channels of it: another function, and so other
        # logits from the authors' weights. Were they equal, ours would be timm's head.
        assert (net(images) - other(images)).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("size", "params_m", "macs_g"),
    [
        ("s12", "11.92", "1.82"),
        ("s24", "21.39", "3.41"),
        ("s36", "30.86", "5.00"),
        ("m36", "56.17", "8.80"),
        ("m48", "73.47", "11.59"),
    ],
)
def test_parameters_and_macs_are_those_of_the_paper(size: str, params_m: str, macs_g: str) -> None:
    cost = count(named(size))
    assert f"{cost.params / 1e6:.2f}" == params_m
    assert f"{cost.macs / 1e9:.2f}" == macs_g
    assert cost.frozen_params == 0
    assert cost == count(spec_of({"model.size": size}, recipe="imagenet"))  # a size is the recipe's own PoolFormer


# ---------------------------------------------------------------------------------------------------------------------
# Optimisation

MODELS = [
    *({"model.token_mixer": name} for name in MIXERS),
    *({"model.norm": name} for name in NORMS),
    *({"model.activation": name} for name in ACTIVATIONS),
]


@pytest.mark.parametrize("settings", MODELS, ids=lambda settings: " ".join(settings.values()))
def test_decayed_parameters_are_those_of_timm(settings: dict[str, str]) -> None:
    net = build_net(spec_of({"model.dims": [32, 64, 96, 128], **settings}))
    ours = {group["weight_decay"]: {id(p) for p in group["params"]} for group in weight_decay_groups(net, 0.05)}
    theirs = timm.optim.param_groups_weight_decay(net, 0.05)
    assert ours == {group["weight_decay"]: {id(p) for p in group["params"]} for group in theirs}
    assert set(ours) == {0.0, 0.05} and all(ours.values())


def timm_schedule(unit: int) -> tuple[CosineLRScheduler, torch.optim.Optimizer]:
    """The schedule of the authors' script, 300 epochs of `unit` updates each (1: by epoch)."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=4e-3)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=300 * unit,
        lr_min=1e-5,
        warmup_t=5 * unit,
        warmup_lr_init=1e-6,
        cycle_limit=1,
        t_in_epochs=unit == 1,
    )
    return scheduler, optimizer


def test_learning_rate_by_epoch_is_that_of_timm() -> None:
    train = spec_of(recipe="imagenet").train
    assert (train.epochs, train.cooldown_epochs, train.schedule_unit) == (300, 10, "epoch")
    scheduler, optimizer = timm_schedule(1)
    steps = 7
    for epoch in range(310):
        scheduler.step(epoch)
        expected = optimizer.param_groups[0]["lr"]
        for step in range(steps):  # the same through the epoch
            ours = learning_rate(train, epoch * steps + step, steps)
            assert ours == pytest.approx(expected, rel=1e-9), (epoch, step)
    assert learning_rate(train, 0, steps) == 1e-6
    assert learning_rate(train, 5 * steps, steps) == pytest.approx(4e-3, rel=1e-3)
    assert learning_rate(train, 309 * steps, steps) == 1e-5


# Defaults of the authors' train.py, in its words; batch and rate are the paper's.
AUTHORS = {
    "opt": "adamw",
    "weight_decay": 0.05,
    "clip_grad": None,
    "sched": "cosine",
    "epochs": 300,
    "warmup_epochs": 5,
    "cooldown_epochs": 10,
    "warmup_lr": 1e-6,
    "min_lr": 1e-5,
    "scale": (0.08, 1.0),
    "hflip": 0.5,
    "aa": "rand-m9-mstd0.5-inc1",
    "train_interpolation": "random",
    "reprob": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mixup_switch_prob": 0.5,
    "smoothing": 0.1,
    "model_ema": False,
}
ROWS = plan("table5", "imagenet").specs


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_trained_as_by_the_authors_script(row: str) -> None:
    train, data = ROWS[row].train, ROWS[row].data
    assert AUTHORS == {
        "opt": train.optimizer,
        "weight_decay": train.weight_decay,
        "clip_grad": train.clip_grad,
        "sched": train.schedule,
        "epochs": train.epochs,
        "warmup_epochs": train.warmup_epochs,
        "cooldown_epochs": train.cooldown_epochs,
        "warmup_lr": train.warmup_lr,
        "min_lr": train.min_lr,
        "scale": data.crop_scale,
        "hflip": 0.5 if data.flip else 0.0,
        "aa": data.rand_augment,
        "train_interpolation": data.interpolation,
        "reprob": data.random_erasing,
        "mixup": data.mixup,
        "cutmix": data.cutmix,
        "mixup_switch_prob": data.cutmix_switch,
        "smoothing": train.label_smoothing,
        "model_ema": train.ema is not None,
    }
    attention = row in ("pppa", "ppaa")
    assert (train.batch_size, train.lr) == ((1024, 1e-3) if attention else (4096, 4e-3))
    assert data.eval_crop == (0.95 if attention or row == "ppff" else 0.9)
    assert (data.eval_interpolation, data.image_size, train.schedule_unit) == ("bicubic", 224, "epoch")


@pytest.mark.parametrize("row", ["baseline", "pppa", "ppff", "batch_norm"])
def test_groups_and_every_epochs_rate_are_those_that_timm_makes_of_the_scripts_arguments(row: str) -> None:
    spec, steps = ROWS[row], 3
    net = build_net(spec)
    theirs = timm.optim.create_optimizer_v2(net, opt="adamw", lr=spec.train.lr, weight_decay=AUTHORS["weight_decay"])
    scheduler, epochs = create_scheduler_v2(
        theirs,
        sched=AUTHORS["sched"],
        num_epochs=AUTHORS["epochs"],
        warmup_epochs=AUTHORS["warmup_epochs"],
        cooldown_epochs=AUTHORS["cooldown_epochs"],
        warmup_lr=AUTHORS["warmup_lr"],
        min_lr=AUTHORS["min_lr"],
    )
    ours = Classification(net, spec.train, Stub(), steps_per_epoch=steps, seed=0).configure_optimizers()["optimizer"]
    assert type(ours) is type(theirs) is torch.optim.AdamW

    def groups(optimizer: torch.optim.Optimizer) -> dict[float, tuple[object, ...]]:
        return {
            group["weight_decay"]: ({id(p) for p in group["params"]}, group["betas"], group["eps"], group["amsgrad"])
            for group in optimizer.param_groups
        }

    assert groups(ours) == groups(theirs) and set(groups(ours)) == {0.0, 0.05}
    assert epochs == spec.train.epochs + spec.train.cooldown_epochs == 310
    for epoch in range(epochs):
        for group in theirs.param_groups:
            assert learning_rate(spec.train, epoch * steps + 1, steps) == pytest.approx(group["lr"], rel=1e-9), epoch
        scheduler.step(epoch + 1)  # as the script does after each epoch


def test_learning_rate_by_step_is_that_of_timm() -> None:
    steps = 7
    train = spec_of({"train.schedule_unit": "step"}, recipe="imagenet").train
    scheduler, optimizer = timm_schedule(steps)
    for step in range(310 * steps):
        scheduler.step_update(step)
        assert learning_rate(train, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step


def test_constant_schedule_stays_after_its_warmup() -> None:
    train = spec_of({"train.schedule": "constant", "train.warmup_epochs": 2}).train
    rates = [learning_rate(train, step, 5) for step in range(60)]
    assert rates[0] == train.warmup_lr
    assert rates[5] == pytest.approx((train.warmup_lr + train.lr) / 2)
    assert set(rates[10:]) == {train.lr}


def test_the_optimizer_has_the_schedule_and_the_groups() -> None:
    spec = spec_of({"train.warmup_epochs": 1})
    net = build_net(spec)
    task = Classification(net, spec.train, Stub(), steps_per_epoch=3, seed=0)
    chosen = task.configure_optimizers()
    optimizer, scheduler = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
    assert chosen["lr_scheduler"]["interval"] == "step"
    for step in range(12 * 3):
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(learning_rate(spec.train, step, 3)), step
        optimizer.step()
        scheduler.step()
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [spec.train.weight_decay, 0.0]
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.9, 0.999), 1e-8)}


# ---------------------------------------------------------------------------------------------------------------------
# Losses and mixed targets


class Stub:
    """In place of the augmentation: gives what it was told."""

    def __init__(self, images: Tensor | None = None, targets: Tensor | None = None):
        self.given = (images, targets)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.given


def training_loss(images: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """The loss that the task trains with, and the logits it is of."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 10))
    spec = spec_of({"train.label_smoothing": smoothing})
    task = Classification(net, spec.train, Stub(images, targets), steps_per_epoch=1, seed=0)
    task.on_train_epoch_start()
    return task.training_step((torch.empty(0), torch.empty(0)), 0), net(images)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
def test_loss_of_labels_is_that_of_timm(smoothing: float) -> None:
    images, labels = torch.randn(11, 1, 5, 5), torch.randint(0, 10, (11,))
    loss, logits = training_loss(images, labels, smoothing)
    torch.testing.assert_close(loss, LabelSmoothingCrossEntropy(smoothing)(logits, labels))


def collated(images: Tensor, labels: Tensor, kept: float) -> Tensor:
    """uint8 images as timm's collation mixes them."""
    collate = FastCollateMixup(num_classes=10)
    collate._params_per_batch = lambda: (kept, False)
    mixed, _ = collate(list(zip(images, labels, strict=True)))
    return mixed


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("mix", "cut"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_loss_of_mixed_images_is_that_of_timm(mix: float, cut: float, smoothing: float) -> None:
    spec = spec_of({"data.mixup": mix, "data.cutmix": cut, "data.crop_padding": 0})
    augment = Augment(spec.data, 10, (0.5,), (0.25,), "contiguous")
    images = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8)
    labels = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 8])
    normal = augment.normalise(images)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, targets = augment(images, labels)
        kept = targets[0, 3].item()  # of image 0, of class 3; its partner is of class 8
        torch.testing.assert_close(targets, mixup_target(labels, 10, kept))
        loss, logits = training_loss(mixed, targets, smoothing)
        expected = SoftTargetCrossEntropy()(logits, mixup_target(labels, 10, kept, smoothing))
        torch.testing.assert_close(loss, expected)
        own, partner = mixed == normal, mixed == normal.flip(0)
        if (own | partner).all():
            seen.add("cut")
            if kept < 1:
                share = partner & ~own
                assert share.float().mean() <= 1 - kept + 1e-6
        else:
            seen.add("mix")
            torch.testing.assert_close(mixed, augment.normalise(collated(images, labels, kept)))
    assert seen == {name for name, alpha in (("mix", mix), ("cut", cut)) if alpha}


def test_mixup_by_hand() -> None:
    images = torch.tensor([0, 1, 6], dtype=torch.uint8)[:, None, None, None]
    mixed, kept = mixup(images, 0.75)
    assert kept == 0.75
    assert mixed.flatten().tolist() == [2.0, 1.0, 4.0]  # 1.5 and 4.5, whole levels, halves to even


def test_cutmix_keeps_the_share_that_it_says() -> None:
    # Each image is one number, so every pixel tells whose it is.
    images = torch.arange(4.0)[:, None, None, None].expand(4, 2, 11, 13)
    own = images.clone()
    cut_at_a_border = 0
    for seed in range(200):
        torch.manual_seed(seed)
        asked = torch.rand(()).item()
        mixed, kept = cutmix(images, asked)
        assert torch.equal(images, own), "the batch itself was changed"
        from_partner = mixed != images
        assert torch.equal(mixed[from_partner], images.flip(0)[from_partner])
        for image in from_partner:
            assert image.float().mean().item() == pytest.approx(1 - kept, abs=1e-6)
        rows, columns = from_partner[0, 0].any(1), from_partner[0, 0].any(0)
        assert from_partner[0, 0].sum() == rows.sum() * columns.sum(), "not a box"
        ratio = math.sqrt(1 - asked)
        whole = (int(11 * ratio) // 2 * 2) * (int(13 * ratio) // 2 * 2)
        assert rows.sum() * columns.sum() <= whole
        cut_at_a_border += bool(rows.sum() * columns.sum() < whole)
    assert 0 < cut_at_a_border < 200


def test_the_mix_is_drawn_from_the_beta_distribution() -> None:
    spec = spec_of({"data.mixup": 0.8, "data.crop_padding": 0})
    augment = Augment(spec.data, 10, (0.5,), (0.25,), "contiguous")
    images, labels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1])
    torch.manual_seed(0)
    kept = torch.stack([augment(images, labels)[1][0, 0] for _ in range(2000)])
    # Beta(a, a): mean 1 / 2, variance 1 / (4 (2a + 1)).
    assert abs(kept.mean() - 0.5) < 0.03
    assert abs(kept.var() / (1 / (4 * 2.6)) - 1) < 0.1
