"""A recipe's modules under a Trainer of one's own, held to what a run records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import TINY_WORDS, Trained
from pytorch_lightning.loggers import CSVLogger
from torch import nn

import metaformer_ablate as ma


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def quiet(data: ma.RecipeData, **more: object) -> pl.Trainer:
    no = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(**{**data.trainer_arguments, **no, **more})


@pytest.mark.parametrize("extra", [(), ("data.mixup=0.5", "train.class_weights=balanced", "train.micro_batch=16")])
@pytest.mark.slow
def test_an_epoch_of_digits_is_that_of_a_run(extra: tuple[str, ...], tmp_path: Path) -> None:
    words = ("train.epochs=1", "train.warmup_epochs=0", "model.depths=[1,1,1,1]", *extra)
    study = ma.load_experiment("pooling_size", "digits", words, results=tmp_path)
    study.run(workers=0, progress=False, keep_checkpoints=True)
    module, data = study.lightning("pool5", device="cpu")
    quiet(data).fit(module, data)
    record = study.store.read(study.spec("pool5").run_id)
    assert record is not None
    logged = {name: module.trainer.callback_metrics[f"val/{name}"].item() for name in ("top1", "top5", "loss")}
    assert logged == record.data["metrics"]
    assert module.trainer.callback_metrics["val/balanced_accuracy"].item() == pytest.approx(
        record.value("balanced_accuracy")
    )
    kept = record.predictions()
    assert all(np.array_equal(kept[name], module.predictions[name]) for name in kept)
    weights = torch.load(record.folder / "last.ckpt", weights_only=True)["state_dict"]
    assert weights.keys() == module.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())


def test_the_recipe_alone_is_its_row(tmp_path: Path, trained: Trained) -> None:
    module, data = ma.lightning("digits", [*TINY_WORDS, "model.pool_size=7"], seed=1, device="cpu")
    study = ma.load_experiment("pooling_size", "digits", TINY_WORDS, results=trained.results)
    assert data.spec.run_id == study.spec("pool7", 1).run_id
    quiet(data).fit(module, data)
    assert module.trainer.callback_metrics["val/top1"].item() == study.store.read(data.spec.run_id).value("top1")
    tested = quiet(data).test(module, data, verbose=False)
    assert tested[0]["val/top1"] == study.store.read(data.spec.run_id).value("top1")


def test_ones_own_net_under_a_logger(tmp_path: Path) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(64, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(images.flatten(1))

    net = Mean()
    module, data = ma.lightning("digits", [word for word in TINY_WORDS if not word.startswith("model.")], net=net)
    assert module.net is net
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)
    trainer = quiet(data, logger=logger, log_every_n_steps=1, max_epochs=2, num_sanity_val_steps=2)
    trainer.fit(module, data)
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert {"train/loss", "val/top1", "val/balanced_accuracy"} <= set(lines[0].split(","))
    assert trainer.callback_metrics["val/top1"] > 20


def test_what_does_not_fit_together_is_one_sentence() -> None:
    module, data = ma.lightning("digits", TINY_WORDS, device="cpu")
    with pytest.raises(ma.RequestError, match=r"accumulate_grad_batches is 2, the recipe's .*micro_batch asks for 1"):
        quiet(data, accumulate_grad_batches=2).fit(module, data)
    with pytest.raises(ma.RequestError, match="unknown recipe 'digit'"):
        ma.lightning("digit")
    with pytest.raises(ma.RequestError, match=r"unknown key 'train\.epoch'"):
        ma.lightning("digits", {"train.epoch": 1})
    with pytest.raises(ma.RequestError, match="--device is 'gpu'"):
        ma.lightning("digits", device="gpu")
