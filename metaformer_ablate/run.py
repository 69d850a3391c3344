"""One RunSpec to one record."""

from __future__ import annotations

import logging
import math
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from metaformer_ablate.cost import count, device_name, macs_at_224, peak_memory, start_peak_memory
from metaformer_ablate.data.augment import Augment
from metaformer_ablate.data.catalogue import DATASETS
from metaformer_ablate.data.files import DataFolder
from metaformer_ablate.data.sources import ImageData, evaluation_loader, load_images, train_loader
from metaformer_ablate.models.build import build_model
from metaformer_ablate.records import Record, Store
from metaformer_ablate.spec import DataSpec, RunSpec
from metaformer_ablate.tasks.classification import Classification, Diverged, learning_rate
from metaformer_ablate.yaml_reader import RequestError

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "fvcore", "metaformer-ablate")


@dataclass(frozen=True)
class Progress:
    """How far a run is. `top1` is of the last evaluation, in percent; None before the first."""

    epoch: int  # finished epochs
    epochs: int
    share: float  # of the whole run, 0 to 1
    train_loss: float | None
    top1: float | None
    images_per_second: float


def choose_device(option: str) -> torch.device:
    """auto, cpu, cuda or cuda:N. Raises RequestError for a device that is not there."""
    if option == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(option)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise RequestError(f"--device is {option!r}; allowed: auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"--device is {option!r}, but this machine has {torch.cuda.device_count()} CUDA devices")
    return device


class Runner:
    """Runs specs one after another; keeps the data of the last one, which a sweep mostly shares."""

    def __init__(self, store: Store, folder: DataFolder, device: torch.device):
        self.store, self.folder, self.device = store, folder, device
        self._loaded: tuple[DataSpec, ImageData] | None = None

    def data(self, spec: DataSpec) -> ImageData:
        """The images of a spec on the training device."""
        if not DATASETS[spec.name].in_memory:
            raise RequestError(f"training on {spec.name} is not built yet; show and cost work under its recipe")
        # Of the data's settings only these change what is loaded; the rest is augmentation.
        key = DataSpec(name=spec.name, image_size=spec.image_size, evaluate_on=spec.evaluate_on)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = (key, load_images(key, self.folder).to(self.device))
        return self._loaded[1]

    def run(self, spec: RunSpec, report: Callable[[Progress], None] = lambda progress: None) -> Record:
        """Trains a spec and writes its record.

        A run that diverges is a result; one that fails is recorded as failed with its reason and log. Raises
        RequestError where its data is missing and StoreError where the record cannot be written.
        """
        data = self.data(spec.data)
        started = datetime.now(UTC)
        watch = _Watch(spec, report)
        common = {
            "epochs": spec.train.epochs + spec.train.cooldown_epochs,
            "device": device_name(self.device),
            "versions": versions(),
            "git": git_state(),
            "data_fingerprint": self.folder.fingerprint(spec.data.name),
            "started": started.isoformat(timespec="seconds"),
        }
        outcome: dict[str, Any]
        predictions = log = None
        memory_before = start_peak_memory(self.device)
        try:
            cost = count(spec)
            common |= {
                "params": cost.params,
                "frozen_params": cost.frozen_params,
                "macs": cost.macs,
                "macs_224": macs_at_224(spec),
                "uncounted": cost.uncounted,
            }
            task = self._train(spec, data, watch)
            metrics = {key: watch.history[-1][f"val_{key}"] for key in ("top1", "top5", "loss")}
            predictions = _predictions(task.logits, task.labels)
            outcome = {"status": "ok", "reason": None, "metrics": metrics}
            outcome["at_chance"] = _at_chance(metrics["top1"], len(predictions["label"]), spec)
        except Diverged as error:
            outcome = {"status": "diverged", "reason": str(error), "metrics": None, "at_chance": None}
        except RequestError:
            raise
        except Exception as error:  # whatever it is, the runs after this one go on
            outcome = {"status": "failed", "reason": _reason(error, spec), "metrics": None, "at_chance": None}
            log = traceback.format_exc()
        record = {
            **outcome,
            **dict.fromkeys(("params", "frozen_params", "macs", "macs_224", "uncounted")),
            **common,
            "images_seen": watch.steps * spec.train.batch_size,
            "seconds": round(watch.seconds, 3),
            "peak_memory_bytes": peak_memory(self.device) if memory_before is not None else None,
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return self.store.write(spec, record, watch.history, predictions, log)

    def _train(self, spec: RunSpec, data: ImageData, watch: _Watch) -> Classification:
        train = spec.train
        torch.set_num_threads(train.threads)
        net = build_model(spec)
        if train.memory_format == "channels_last":
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        augment = Augment(spec.data, DATASETS[spec.data.name].num_classes, data.mean, data.std, train.memory_format)
        loader = train_loader(data.train, train.batch_size, spec.seed)
        task = Classification(net, train, augment, steps_per_epoch=len(loader), seed=spec.seed)
        if train.compile:
            task.net.compile()
        with warnings.catch_warnings():
            # The loaders need no workers: their batches are views of tensors in memory.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", category=FutureWarning)
            logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
            trainer = pl.Trainer(
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                devices=[self.device.index or 0] if self.device.type == "cuda" else 1,
                max_epochs=train.epochs + train.cooldown_epochs,
                precision="bf16-mixed" if train.precision == "bf16" else "32-true",
                gradient_clip_val=train.clip_grad,
                callbacks=[watch],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
            )
            trainer.fit(task, loader, evaluation_loader(data.evaluation))
        return task


class _Watch(pl.Callback):
    """Writes the history, stops a run that is not finite, and reports how far it is."""

    def __init__(self, spec: RunSpec, report: Callable[[Progress], None]):
        self.spec, self.report = spec, report
        self.history: list[dict[str, float]] = []
        self.epochs = spec.train.epochs + spec.train.cooldown_epochs
        self.steps = 0
        self._start = self._told = time.perf_counter()
        self._since = (0, self._start)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self._start = self._told = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self._since = (self.steps, time.perf_counter())

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, *of_batch: Any) -> None:
        self.steps += 1
        if time.perf_counter() - self._told > 0.5:
            self._tell(self.steps / (self.epochs * trainer.num_training_batches))

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, Classification)
        task.check_finite()
        values = {f"val_{key}": trainer.callback_metrics[f"val/{key}"].item() for key in ("loss", "top1", "top5")}
        # The last step of an epoch can break the weights after a loss that was still finite.
        if not (math.isfinite(values["val_loss"]) and math.isfinite(task.train_loss)):
            raise Diverged(self.steps)
        self.history.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": self.steps,
                "lr": learning_rate(task.spec, self.steps - 1, task.steps_per_epoch),  # of the epoch's last step
                "train_loss": task.train_loss,
                **values,
                "seconds": round(self.seconds, 3),
            }
        )
        self._tell(len(self.history) / self.epochs)

    def _tell(self, share: float) -> None:
        self._told = time.perf_counter()
        last = self.history[-1] if self.history else None
        steps, since = self._since
        rate = (self.steps - steps) * self.spec.train.batch_size / max(self._told - since, 1e-9)
        self.report(
            Progress(
                epoch=len(self.history),
                epochs=self.epochs,
                share=share,
                train_loss=last["train_loss"] if last else None,
                top1=last["val_top1"] if last else None,
                images_per_second=rate,
            )
        )


def _predictions(logits: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    small = np.uint8 if logits.shape[1] <= 256 else np.uint16
    return {
        "label": labels.cpu().numpy().astype(small),
        "predicted": predicted.cpu().numpy().astype(small),
        "confidence": confidence.float().cpu().numpy(),
    }


def _at_chance(top1: float, images: int, spec: RunSpec) -> bool:
    """Whether top-1 is within three standard deviations of guessing one of the classes."""
    p = 1 / DATASETS[spec.data.name].num_classes
    return bool(top1 / 100 <= p + 3 * (p * (1 - p) / images) ** 0.5)


def _reason(error: Exception, spec: RunSpec) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in text:
        return f"out of memory with a batch of {spec.train.batch_size}; try a smaller model.size or data.image_size"
    return f"{type(error).__name__}: {text}"


def versions() -> dict[str, str]:
    """Versions of what computes, by package."""
    import platform

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            # torch's own string tells the builds for CPU and CUDA apart.
            found[name] = str(torch.__version__) if name == "torch" else version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any]:
    """Commit of this package's checkout and whether its files differ from it; nulls where it is no checkout."""
    home = Path(__file__).resolve().parent.parent
    nothing = {"commit": None, "dirty": None}

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(home), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != home:
            return nothing  # installed inside somebody else's repository
        # Results are written while runs go on, so they do not make a commit dirty.
        changed = git("status", "--porcelain", "--", "metaformer_ablate", "experiments", "setup.cfg")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return nothing
