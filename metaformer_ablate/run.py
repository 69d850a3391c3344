"""One RunSpec to one record."""

from __future__ import annotations

import ctypes
import logging
import math
import pickle
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import Tensor, nn

from metaformer_ablate.checkpoints import FINAL, LAST, Checkpoints
from metaformer_ablate.claims import Claim, Claims, Progress
from metaformer_ablate.computing import Computing, checkpoint_activations, is_compile_error
from metaformer_ablate.cost import count, device_name, macs_at_224, peak_memory, start_peak_memory
from metaformer_ablate.data.augment import Augment
from metaformer_ablate.data.files import DataFolder
from metaformer_ablate.data.sources import ImageData, load_images
from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.launchers import Ended, Order
from metaformer_ablate.models.build import build_model
from metaformer_ablate.models.norms import BatchNorm
from metaformer_ablate.progress import say
from metaformer_ablate.ranks import Ranks, check, check_launch
from metaformer_ablate.records import Record, Store, StoreError
from metaformer_ablate.signals import Interrupted, Stop
from metaformer_ablate.spec import DataSpec, RunSpec, TrainSpec
from metaformer_ablate.tasks.classification import Classification, Diverged, learning_rate
from metaformer_ablate.tracking import Tracker, follow
from metaformer_ablate.yaml_reader import RequestError

if TYPE_CHECKING:
    from metaformer_ablate.data.pictures import PictureData

Data: TypeAlias = "ImageData | PictureData"

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "fvcore", "metaformer-ablate")


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


def choose_devices(option: str, count: int) -> list[torch.device]:
    """The devices of this machine that share a run: `cuda:0,cuda:1`, or what `choose_device` takes, `count` times.

    Raises RequestError where they are not there, or not as many.
    """
    chosen = [choose_device(name) for name in option.split(",")]
    if len(chosen) == 1 and chosen[0].type == "cpu":
        return chosen * count
    if len(chosen) == 1 and chosen[0].index is None and count <= torch.cuda.device_count():
        return [torch.device("cuda", i) for i in range(count)]
    if len(chosen) != count:
        found = torch.cuda.device_count() if chosen[0].index is None else len(chosen)
        raise RequestError(f"train.devices is {count}, but --device {option} names {found} CUDA devices here")
    return chosen


@cache
def keep_freed_memory() -> None:
    """Has the process keep the memory of freed tensors for those of the next step, where the C library is GNU's.

    By itself it hands large pieces back to the system, step after step, and is given each page again, empty: a tenth of
    the time of a small model's step, more on a busy machine. The process's largest memory grew by 3 to 4 percent.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # never
        mallopt(M_MMAP_THRESHOLD, 2**30)  # bytes from which on a tensor still gets pages of its own


class ClaimLost(Exception):
    """Another process has taken the run over, for this one showed no sign of life."""


@dataclass(frozen=True)
class Handling:
    """How a run is carried out; none of it can change its result.

    `stop` is asked after each step: once it says yes, the run saves its place and raises Interrupted. `claim` is kept
    up to date with the progress, and the run ends with ClaimLost when it is lost. `tracker` is told of losses and of
    the lines of the history, those before a checkpoint too.
    """

    report: Callable[[Progress], None] = lambda progress: None
    checkpoint_seconds: float = 15.0
    keep_checkpoints: bool = False
    stop: Stop = field(default_factory=Stop)
    claim: Claim | None = None
    tracker: Tracker | None = None

    def tell(self, progress: Progress | None) -> None:
        """Passes progress on. Raises ClaimLost where the claim is lost, also without progress to tell."""
        if self.claim is not None:
            self.claim.progress = progress or self.claim.progress
            if self.claim.lost:
                raise ClaimLost(self.claim.run_id)
        if progress is not None:
            self.report(progress)


@dataclass(frozen=True)
class Trained:
    """What training left behind: the content of a record."""

    record: dict[str, Any]
    history: list[dict[str, float]]
    predictions: dict[str, np.ndarray] | None
    log: str | None
    checkpoint: Path | None  # to be kept

    def write(self, store: Store, spec: RunSpec) -> Record:
        return store.write(spec, self.record, self.history, self.predictions, self.log, self.checkpoint)


class Runner:
    """Runs specs one after another; keeps the data of the last one, which a sweep mostly shares.

    Where several devices share a run there is a Runner in the process of each (`ranks`): `device` is its own one, and
    `peers` are those of this machine.
    """

    def __init__(
        self, store: Store, folder: DataFolder, device: torch.device, peers: Sequence[torch.device] | None = None
    ):
        self.store, self.folder, self.device = store, folder, device
        self.peers = [device] if peers is None else list(peers)
        self._loaded: tuple[DataSpec, Data] | None = None

    def data(self, spec: DataSpec) -> Data:
        """The images of a spec: on the training device, or opened where they are read one by one."""
        self.folder.require(spec.name, spec.reader)
        # Of the settings of a set in memory only these change what is loaded; the rest is augmentation.
        of_memory = DataSpec(name=spec.name, image_size=spec.image_size, evaluate_on=spec.evaluate_on)
        key = of_memory if spec.in_memory else spec
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = (key, self._load(key))
        return self._loaded[1]

    def _load(self, spec: DataSpec) -> Data:
        if spec.in_memory:
            return load_images(spec, self.folder).to(self.device)
        from metaformer_ablate.data.pictures import open_pictures  # loads timm

        return open_pictures(spec, self.folder, self.device)

    def run(self, spec: RunSpec, handling: Handling | None = None) -> Record:
        """Trains a spec, from its last checkpoint where there is one, and writes its record.

        A run that diverges is a result; one that fails is recorded as failed with its reason and log. Raises
        RequestError where its data is missing, StoreError where the results folder cannot be written, Interrupted
        where the handling's stop was asked for, and ClaimLost.
        """
        self.data(spec.data)
        self.clear(spec)
        return self.train(spec, handling or Handling()).write(self.store, spec)

    def clear(self, spec: RunSpec) -> None:
        """Moves a record of the run aside: failed, stale, damaged, or asked for once more. It begins from the start."""
        if self.store.read(spec.run_id) is not None or spec.run_id in self.store.problems:
            self.store.set_aside(spec.run_id)

    def train(
        self,
        spec: RunSpec,
        handling: Handling,
        find_checkpoint: Callable[[_Watch], Path | None] = lambda watch: watch.find_checkpoint(),
    ) -> Trained:
        """`run` without the record written, and from the checkpoint that is found."""
        data = self.data(spec.data)
        try:
            self.store.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError.of(self.store.path, "its folder runs", error) from error
        watch = self.watch(spec, handling)
        common = {
            "epochs": watch.epochs,
            "versions": versions(),
            "git": git_state(),
            "data_fingerprint": self.folder.fingerprint(spec.data.name, spec.data.reader),
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
            task = self._train(spec, data, watch, find_checkpoint)
            metrics = {key: watch.history[-1][f"val_{key}"] for key in ("top1", "top5", "loss")}
            predictions = _predictions(task.logits, task.labels)
            outcome = {"status": "ok", "reason": None, "metrics": metrics}
            outcome["at_chance"] = _at_chance(metrics["top1"], len(predictions["label"]), spec)
        except Diverged as error:
            outcome = {"status": "diverged", "reason": str(error), "metrics": None, "at_chance": None}
        except (RequestError, StoreError, ClaimLost):
            raise
        except Exception as error:  # whatever it is, the runs after this one go on
            outcome = {"status": "failed", "reason": _reason(error, spec), "metrics": None, "at_chance": None}
            log = traceback.format_exc()
        record = _EMPTY | common | outcome | watch.unreadable.of_record()
        record |= {
            "images_seen": watch.steps * spec.train.batch_size,
            "seconds": round(watch.seconds, 3),
            "device": "; then ".join(watch.devices),
            **watch.computing.as_recorded(),
            "peak_memory_bytes": peak_memory(self.device) if memory_before is not None else None,
            "started": watch.started,
            "ended": _now(),
        }
        kept = watch.checkpoints.final if handling.keep_checkpoints and outcome["status"] == "ok" else None
        return Trained(record, watch.history, predictions, log, kept)

    def watch(self, spec: RunSpec, handling: Handling) -> _Watch:
        name, world = device_name(self.device), spec.train.world
        checkpoints = Checkpoints(self.store.folder(spec.run_id))
        computing = Computing.on(self.device, spec.train)
        return _Watch(spec, handling, checkpoints, name if world == 1 else f"{world} x {name}", computing)

    def _train(
        self, spec: RunSpec, data: Data, watch: _Watch, find_checkpoint: Callable[[_Watch], Path | None]
    ) -> Classification:
        train, computing = spec.train, watch.computing
        torch.set_num_threads(train.threads)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what the run before kept to itself is for other workers on this GPU too
        else:
            keep_freed_memory()
            if computing.precision == "bf16":
                _warn_of_bf16()
        checkpoint = find_checkpoint(watch)
        net = build_model(spec, kernels=computing.kernels)
        batch_norm = _has_batch_norm(net, train)
        check(spec, self.device.type, batch_norm)
        if train.grad_checkpointing:
            checkpoint_activations(net)
        if train.memory_format == "channels_last":
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        augment = Augment(spec.data, spec.data.classes, data.mean, data.std, train.memory_format)
        steps = len(data.train) // train.batch_size
        task = Classification(net, train, augment, steps_per_epoch=steps, seed=spec.seed)
        if computing.compiled:
            task.compile_nets()
        with warnings.catch_warnings():
            # The loaders need no workers where their batches are views of tensors in memory.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # A loader that begins where the checkpoint ended is what this one wants.
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
            warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
            # What is logged is of all devices already.
            warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
            warnings.filterwarnings("ignore", category=FutureWarning)
            for name in ("pytorch_lightning", "lightning_fabric"):
                logging.getLogger(name).setLevel(logging.ERROR)
            trainer = pl.Trainer(
                accelerator="gpu" if self.device.type == "cuda" else "cpu",
                devices=[d.index or 0 for d in self.peers] if self.device.type == "cuda" else len(self.peers),
                num_nodes=train.nodes,
                strategy=_strategy(train),
                accumulate_grad_batches=train.accumulation,
                sync_batchnorm=batch_norm and train.world > 1,
                use_distributed_sampler=False,  # the task takes its part of each batch
                max_epochs=watch.epochs,
                precision="bf16-mixed" if computing.precision == "bf16" else "32-true",
                gradient_clip_val=train.clip_grad,
                callbacks=[watch],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                plugins=[_environment(train)],
            )
            if batch_norm and train.world > 1 and trainer.is_global_zero:
                say(f"run {spec.run_id}: batch norm is synchronised over {train.world} devices")
            rank, unreadable = trainer.global_rank, watch.unreadable
            loader = data.train_loader(train, spec.seed, watch.place, rank, unreadable)
            shares = data.evaluation_loader(train, rank, unreadable)
            with watch.handling.stop.polling():
                trainer.fit(task, loader, shares, ckpt_path=checkpoint, weights_only=True)
        return task


@cache
def _warn_of_bf16() -> None:
    say("warning: train.precision is bf16 on a CPU, where it takes about ten times as long as fp32")


def _has_batch_norm(net: nn.Module, train: TrainSpec) -> bool:
    """Raises RequestError where several devices could not synchronise it without changing what it computes."""
    kinds = {type(module) for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    # torch puts its own class in their place; timm has some that do more, such as an activation.
    if train.world > 1 and (odd := kinds - {nn.BatchNorm1d, nn.BatchNorm2d, BatchNorm}):
        names = ", ".join(sorted(kind.__name__ for kind in odd))
        raise RequestError(
            f"the model has {names}, which {train.world} devices cannot synchronise; allowed: one device"
        )
    return bool(kinds)


def _environment(train: TrainSpec) -> ClusterEnvironment:
    if train.nodes > 1:
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()  # not Slurm's, which would requeue the job by itself


def _strategy(train: TrainSpec) -> Strategy | str:
    if train.world == 1:
        return "auto"
    if train.strategy == "fsdp":
        from torch.distributed.fsdp import MixedPrecision

        # The shards stay in fp32; bf16 is autocast's, as everywhere, or a run would compute otherwise under fsdp.
        full = MixedPrecision(torch.float32, torch.float32, torch.float32)
        return FSDPStrategy(state_dict_type="full", mixed_precision=full)
    return DDPStrategy()


# Between two reports of how far a run is.
TELL_SECONDS = 0.5

_runners: dict[tuple[str, str | None, str], Runner] = {}


def execute(order: Order, stop: Stop, report: Callable[[Progress], None] = lambda progress: None) -> Ended:
    """Carries an order out: claims the run, trains it unless its record is there by now, and lets go of it."""
    try:
        spec = RunSpec.model_validate(order.spec)
        key = (order.results, order.data, order.device)
        if key not in _runners:
            _runners.clear()  # the images of another sweep
            folder = DataFolder.choose(order.data)
            first = order.device.split(",")[0]  # the others are for runs that several share
            _runners[key] = Runner(Store(Path(order.results)), folder, choose_device(first))
        runner = _runners[key]
        try:
            claim = Claims(runner.store.path).take(spec.run_id, order.name, order.dead)
        except OSError as error:
            raise StoreError.of(runner.store.path, f"the claim on run {spec.run_id}", error) from error
        if claim is None:
            return Ended(spec.run_id, "busy")
        try:
            runner.store.problems.clear()
            record = runner.store.read(spec.run_id)
            if record is None or order.replaces == record.checksum:
                fingerprint = runner.folder.fingerprint(spec.data.name, spec.data.reader)
                with follow(order.wandb, spec, runner.store, fingerprint, versions()) as tracker:
                    handling = Handling(
                        report,
                        checkpoint_seconds=order.checkpoint_seconds,
                        keep_checkpoints=order.keep_checkpoints,
                        stop=stop,
                        claim=claim,
                        tracker=tracker,
                    )
                    if spec.train.world > 1:
                        ended = _run_on_ranks(runner, order, spec, handling)
                        record = runner.store.read(spec.run_id) if ended.outcome == "recorded" else None
                        if tracker is not None and record is not None:
                            for line in record.history():  # rank 0 has no logger
                                tracker.epoch(line)
                            tracker.end(record)
                        return ended
                    record = runner.run(spec, handling)
                    if tracker is not None:
                        tracker.end(record)
            return Ended(spec.run_id, "recorded")
        finally:
            claim.release()
    except Interrupted as interruption:
        return Ended(order.run_id, "stopped", str(interruption))
    except ClaimLost:
        return Ended(order.run_id, "busy")
    except RequestError as error:
        return Ended(order.run_id, "request", str(error))
    except StoreError as error:
        return Ended(order.run_id, "store", str(error))


def _run_on_ranks(runner: Runner, order: Order, spec: RunSpec, handling: Handling) -> Ended:
    check_launch(spec.train)
    check(spec, runner.device.type)
    if spec.train.nodes == 1:
        choose_devices(order.device, spec.train.devices)
    runner.folder.require(spec.data.name, spec.data.reader)
    runner.clear(spec)
    ranks = Ranks(order, spec.train, runner.watch(spec, handling).find_checkpoint())
    with handling.stop.polling():
        ranks.follow(handling.stop, handling.tell)
    if ranks.ended is not None:
        return ranks.ended
    if (death := ranks.death()) is not None:
        return Ended(spec.run_id, "died", death)
    assert ranks.failure is not None
    Trained(**ranks.failure, predictions=None, checkpoint=None).write(runner.store, spec)
    return Ended(spec.run_id, "recorded")


class _Otherwise(Exception):
    """Why a checkpoint is of a run that computed otherwise."""


class _Watch(pl.Callback):
    """Writes the history and the checkpoints, stops a run that is not finite or not wanted, and reports how far it is.

    Its state is in each checkpoint, so that a run that is resumed has the history of one that was not disturbed.
    """

    def __init__(self, spec: RunSpec, handling: Handling, checkpoints: Checkpoints, device: str, computing: Computing):
        self.spec, self.handling, self.checkpoints, self.computing = spec, handling, checkpoints, computing
        self.history: list[dict[str, float]] = []
        self.epochs = spec.train.epochs + spec.train.cooldown_epochs
        self.steps = 0
        self.devices = [device]
        self.started = _now()
        self.place = (0, 0)  # epoch and batch to begin with
        self.unreadable = Unreadable(spec.data.max_unreadable or 0)
        self._start = self._told = self._saved = time.perf_counter()
        self._since = (0, self._start)

    @property
    def seconds(self) -> float:
        """Training time, over all attempts; what was trained after the last checkpoint of an attempt is not in it."""
        return time.perf_counter() - self._start

    # Checkpoints

    def find_checkpoint(self) -> Path | None:
        """The checkpoint to go on from, and `place` and state as it has them; None to begin at the beginning.

        One of other versions, or of another precision or other code, is not used: a run would be half of each, and
        nobody could train it again.
        """
        while (path := self.checkpoints.newest()) is not None:
            try:
                return self.use(path)
            except _Otherwise as error:
                reason = str(error)
            except (KeyError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
                reason = f"cannot be read ({type(error).__name__})"
            path.unlink()
            warnings.warn(f"the checkpoint {path} {reason}; it is not used", stacklevel=1)
        return None

    def use(self, path: Path | None) -> Path | None:
        """Takes `place` from a checkpoint, if one is given, and returns it."""
        if path is not None:
            state = torch.load(path, map_location="cpu", weights_only=True)["callbacks"][self.state_key]
            if state["versions"] != versions() or not {"accumulation", "unreadable"} <= set(state):
                raise _Otherwise("was written with other versions")
            if state.get("computing") != self.computing.as_recorded():
                raise _Otherwise("was computed in another precision, compiled or not, or with other kernels")
            self.place = (state["epoch"], state["batch"])
        return path

    def state_dict(self) -> dict[str, Any]:
        keys = ("history", "steps", "seconds", "devices", "started")
        epoch, batch = self.place
        of_place = {"epoch": epoch, "batch": batch, "accumulation": self.spec.train.accumulation}
        found = {"computing": self.computing.as_recorded(), "unreadable": self.unreadable.found}
        return {**{k: getattr(self, k) for k in keys}, "versions": versions(), **of_place, **found}

    def on_load_checkpoint(self, trainer: pl.Trainer, task: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning counts the parts that a device takes; where there were more or fewer of them, it counts anew."""
        then, now = checkpoint["callbacks"][self.state_key]["accumulation"], self.spec.train.accumulation
        for counts in checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"].values():
            if then != now and isinstance(counts, dict):
                under_way = counts["ready"] - counts["completed"]
                counts.update({key: value * now // then for key, value in counts.items()})
                counts["completed"] = counts["ready"] - under_way

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history, self.steps, self.started = state["history"], state["steps"], state["started"]
        self.devices = list(dict.fromkeys([*state["devices"], *self.devices]))
        self.unreadable.add(state["unreadable"])
        self._start = time.perf_counter() - state["seconds"]

    def _save(self, trainer: pl.Trainer, epoch: int, batch: int, name: str = LAST) -> None:
        self.place = (epoch, batch)
        self._gather_unreadable(trainer)
        try:
            if trainer.is_global_zero:
                self.checkpoints.save(trainer.save_checkpoint, name)
            else:  # every device gives its part, the first one writes
                trainer.save_checkpoint(self.checkpoints.folder / name)
        except OSError as error:
            raise StoreError.of(self.checkpoints.folder, f"the checkpoint of run {self.spec.run_id}", error) from error
        self._saved = time.perf_counter()

    def _gather_unreadable(self, trainer: pl.Trainer) -> None:
        """Of all devices, on each. Raises TooManyUnreadable, on all of them."""
        if trainer.world_size > 1 and not self.spec.data.in_memory:
            found: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(found, self.unreadable.found)
            for others in found:
                self.unreadable.add(others)

    # Hooks

    def on_fit_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        now = time.perf_counter()
        if not self.steps:
            self._start = now
        self._told = self._saved = now
        self.handling.stop.catch()

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self._since = (self.steps, time.perf_counter())
        if self.handling.tracker is not None:
            for line in self.history:
                self.handling.tracker.epoch(line)

    def on_train_epoch_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self._since = (self.steps, time.perf_counter())

    def on_train_batch_end(self, trainer: pl.Trainer, task: pl.LightningModule, out: Any, batch: Any, i: int) -> None:
        if (i + 1) % self.spec.train.accumulation:
            return  # in the middle of a step
        self.steps += 1
        if self.handling.tracker is not None:
            self.handling.tracker.loss(self.steps, out["loss"])
        last = i + 1 == trainer.num_training_batches
        stop, due = self._asked(trainer)
        # After the last step of an epoch the evaluation comes first: then the epoch's line of history is saved too.
        if not last and (stop or due):
            self._save(trainer, trainer.current_epoch, (i + 1) // self.spec.train.accumulation)
        if stop and not last:
            raise Interrupted(self.handling.stop.number or 0)
        if time.perf_counter() - self._told > TELL_SECONDS:
            assert isinstance(task, Classification)
            self._tell(self.steps / (self.epochs * task.steps_per_epoch))

    def _asked(self, trainer: pl.Trainer) -> tuple[bool, bool]:
        """Whether an end is asked for, and whether a checkpoint is due: on any device, so that all do the same."""
        asked = self.handling.stop(), time.perf_counter() - self._saved >= self.handling.checkpoint_seconds
        if trainer.world_size > 1:
            told = torch.tensor([*asked, self.handling.stop.number or 0], device=trainer.strategy.root_device)
            stop, due, number = trainer.strategy.all_gather(told).amax(0).tolist()
            self.handling.stop.number = number or None
            asked = bool(stop), bool(due)
        return asked

    def on_train_epoch_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, Classification)
        self._gather_unreadable(trainer)
        train_loss = task.finish_epoch()
        values = {f"val_{key}": trainer.callback_metrics[f"val/{key}"].item() for key in ("loss", "top1", "top5")}
        # The last step of an epoch can break the weights after a loss that was still finite.
        if not (math.isfinite(values["val_loss"]) and math.isfinite(train_loss)):
            raise Diverged(self.steps)
        self.history.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": self.steps,
                "lr": learning_rate(task.spec, self.steps - 1, task.steps_per_epoch),  # of the epoch's last step
                "train_loss": train_loss,
                **values,
                "seconds": round(self.seconds, 3),
            }
        )
        if self.handling.tracker is not None:
            self.handling.tracker.epoch(self.history[-1])
        ended = len(self.history) == self.epochs
        stop, due = self._asked(trainer)
        if self.handling.keep_checkpoints if ended else (stop or due):
            self._save(trainer, trainer.current_epoch + 1, 0, FINAL if ended else LAST)
        if stop and not ended:
            raise Interrupted(self.handling.stop.number or 0)
        self._tell(len(self.history) / self.epochs)

    def _tell(self, share: float) -> None:
        self._told = time.perf_counter()
        if not (runs := self.checkpoints.folder.parent).is_dir():  # whoever removed it wants no records
            raise StoreError(f"{runs.parent}: the results folder was removed while run {self.spec.run_id} trained")
        last = self.history[-1] if self.history else None
        steps, since = self._since
        rate = (self.steps - steps) * self.spec.train.batch_size / max(self._told - since, 1e-9)
        progress = Progress(
            epoch=len(self.history),
            epochs=self.epochs,
            share=share,
            train_loss=last["train_loss"] if last else None,
            top1=last["val_top1"] if last else None,
            images_per_second=rate,
        )
        self.handling.tell(progress)


# The keys of record.json, in their order; a run that ends early lacks values, not keys.
_EMPTY: dict[str, Any] = dict.fromkeys(
    (
        *("status", "reason", "metrics", "at_chance", "params", "frozen_params", "macs", "macs_224", "uncounted"),
        *("epochs", "images_seen", "seconds", "device", "precision", "compiled", "kernels", "peak_memory_bytes"),
        *("versions", "git", "data_fingerprint", "started", "ended"),
    )
)


def failed_record(spec: RunSpec, reason: str) -> dict[str, Any]:
    """What there is to record of a run whose worker died, as another process sees it."""
    seen = {"epochs": spec.train.epochs + spec.train.cooldown_epochs, "images_seen": 0, "seconds": 0.0}
    of_process = {"versions": versions(), "git": git_state(), "started": _now(), "ended": _now()}
    return _EMPTY | seen | of_process | {"status": "failed", "reason": reason}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    p = 1 / spec.data.classes
    return bool(top1 / 100 <= p + 3 * (p * (1 - p) / images) ** 0.5)


def _reason(error: Exception, spec: RunSpec) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in text:
        return f"out of memory with a batch of {spec.train.batch_size}; try a smaller model.size or data.image_size"
    if is_compile_error(error):
        return f"torch.compile failed ({type(error).__name__}: {text[:300]}); try train.compile=false"
    return f"{type(error).__name__}: {text}"


@cache
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


@cache  # of the code that this process has loaded; what is committed later is not what trains
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
