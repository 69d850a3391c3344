"""Class weights and balanced accuracy, held to scikit-learn and to torch's weighted cross entropy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_WORDS, Result, Trained
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from specs import spec_of
from torch import Tensor, nn
from torch.nn import functional as F

from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.module import Classification, balanced_weights
from metaformer_ablate.tasks.classification.predictions import derive

CLASSES = 5
LABELS = torch.tensor([0] * 40 + [1] * 9 + [2] * 3 + [3] * 25 + [4])


def test_the_weights_are_scikit_learns() -> None:
    theirs = compute_class_weight("balanced", classes=np.arange(CLASSES), y=LABELS.numpy())
    np.testing.assert_allclose(balanced_weights(LABELS, CLASSES).numpy(), theirs, rtol=1e-6)
    assert balanced_weights(LABELS.numpy(), CLASSES)[LABELS].mean().item() == pytest.approx(1)
    with pytest.raises(RequestError, match=r"1 of 6 classes have no training image \(the first is 5\)"):
        balanced_weights(LABELS, 6)


def task_of(smoothing: float, micro_batch: int | None = None, **mixing: float | None) -> Classification:
    """A linear net over images of 4 x 4 with weights of the classes of LABELS."""
    settings = {"train.label_smoothing": smoothing, "train.micro_batch": micro_batch, "train.class_weights": "balanced"}
    train = spec_of({**settings, "train.batch_size": 16}).train
    augment = Augment(DataSpec(name="digits", image_size=8, **mixing), CLASSES, (0.5,), (0.25,), "contiguous")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    return Classification(net, train, augment, 4, 0, balanced_weights(LABELS, CLASSES))


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    chosen = torch.randperm(len(LABELS))[:16]
    return torch.randint(0, 256, (16, 1, 4, 4), dtype=torch.uint8), LABELS[chosen]


UNMIXED = ("data.mixup=0", "data.cutmix=0")
MIXING = [{}, {"mixup": 0.8, "cutmix_switch": None}, {"cutmix": 1.0, "cutmix_switch": None}]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixing", MIXING)
def test_the_loss_is_torchs(smoothing: float, mixing: dict[str, float | None]) -> None:
    task = task_of(smoothing, **mixing)
    torch.manual_seed(2)
    images, targets = task.augment(*batch())
    assert targets.is_floating_point() == bool(mixing)
    weights = torch.tensor(
        compute_class_weight("balanced", classes=np.arange(CLASSES), y=LABELS.numpy()), dtype=torch.float32
    )
    theirs = nn.CrossEntropyLoss(weight=weights, label_smoothing=smoothing)(task.net(images), targets)
    torch.manual_seed(2)
    torch.testing.assert_close(task.training_loss(batch()), theirs)
    assert not torch.isclose(theirs, F.cross_entropy(task.net(images), targets, label_smoothing=smoothing))


@pytest.mark.parametrize("mixing", MIXING)
def test_parts_of_a_batch_give_the_gradient_of_the_whole(mixing: dict[str, float | None]) -> None:
    whole, parts = task_of(0.1, **mixing), task_of(0.1, micro_batch=4, **mixing)
    torch.manual_seed(2)
    whole.training_loss(batch()).backward()
    for part in range(4):
        parts.micro_batches.at = part
        torch.manual_seed(2)
        (parts.training_loss(batch()) / 4).backward()
    for one, other in zip(whole.net.parameters(), parts.net.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_weights_are_no_part_of_a_checkpoint() -> None:
    assert not any("class_weights" in name for name in task_of(0.0).state_dict())


def test_a_setting_that_is_null_is_in_no_id() -> None:
    assert "class_weights" not in spec_of({}).to_dict()["train"]
    assert spec_of({"train.class_weights": None}).run_id == spec_of({}).run_id
    assert spec_of({"train.class_weights": "balanced"}).run_id != spec_of({}).run_id


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.class_weights=balance"], "train.class_weights is 'balance'"),
        (["--recipe", "scenes_detection", "train.class_weights=balanced"], "nothing reads it: the task is detection"),
        (["--recipe", "scenes_segmentation", "train.class_weights=balanced"], "nothing reads it: the task is segm"),
        (
            [
                "--recipe",
                "imagenet",
                "train.class_weights=balanced",
                "train.micro_batch=64",
                "data.mixup=0",
                "data.cutmix=0",
            ],
            "train.class_weights is 'balanced' (a string); allowed where 64 parts of a batch are read apart: null",
        ),
    ],
)
def test_bad_settings_are_one_sentence(words: list[str], said: str, ablate: Callable[..., Result]) -> None:
    assert said in ablate("show", "pooling_size", *words).sentence


def test_balanced_accuracy_is_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    for classes in (2, 5, 300):
        label = draw.choice(classes, 400, p=draw.dirichlet(np.ones(classes) / 2))
        predicted = np.where(draw.random(400) < 0.6, label, draw.integers(0, classes, 400))
        arrays = {"label": label.astype(np.uint16), "predicted": predicted.astype(np.uint16)}
        theirs = 100 * balanced_accuracy_score(label, predicted)
        assert derive(arrays)["balanced_accuracy"] == pytest.approx(theirs, abs=1e-9)


def test_old_records_give_balanced_accuracy(trained: Trained, ablate: Callable[..., Result], tmp_path: Path) -> None:
    table = ablate("table", *trained.arguments, "--metric", "balanced_accuracy", "--json").json
    assert (table["metric"], table["unit"], table["higher_is_better"]) == ("balanced_accuracy", "%", True)
    store = Store(trained.results)
    for row in table["rows"]:
        for run in row["runs"]:
            record = store.read(run["run_id"])
            assert record is not None and "balanced_accuracy" not in record.data["metrics"]
            kept = record.predictions()
            theirs = 100 * balanced_accuracy_score(kept["label"], kept["predicted"])
            assert run["value"] == pytest.approx(theirs, abs=1e-9)
        assert row["mean"] == pytest.approx(np.mean([run["value"] for run in row["runs"]]))
    text = ablate("table", *trained.arguments, "--metric", "balanced_accuracy").out
    assert "Balanced accuracy" in text
    assert "balanced_accuracy" in ablate("table", "pooling_size", "--metric", "balanced").sentence
    ablate("plot", *trained.arguments, "--metric", "balanced_accuracy", "--kind", "rows", "--out", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_a_run_with_class_weights(trained: Trained, ablate: Callable[..., Result], tmp_path: Path) -> None:
    words = ("pooling_size", *TINY_WORDS, "train.class_weights=balanced", "--results", tmp_path / "results")
    assert ablate("run", *words).code == 0
    weighted = ablate("table", *words, "--metric", "loss", "--json").json["rows"]
    plain = ablate("table", *trained.arguments, "--seeds", "1", "--metric", "loss", "--json").json["rows"]
    for one, other in zip(weighted, plain, strict=True):  # the ten digits are almost of one number: almost the same
        assert one["status"] == "ok" and 0 < abs(one["mean"] - other["mean"]) < 0.1
