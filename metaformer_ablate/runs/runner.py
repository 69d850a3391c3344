"""One RunSpec to one record."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytorch_lightning as pl
import torch

from metaformer_ablate.cost.cost import count, macs_at_224
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.build import build_model
from metaformer_ablate.records.checkpoints import Checkpoints
from metaformer_ablate.records.record import Record, StoreError
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.callback import RunCallback
from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.options import ClaimLost, RunOptions
from metaformer_ablate.runs.outcome import EMPTY_RECORD, RunOutcome, failure_reason, now
from metaformer_ablate.runs.trainer import choose_strategy, cluster_environment, has_batch_norm
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system import provenance
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.system.memory import peak_memory, retain_freed_memory, start_peak_memory
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.data.in_memory import InMemoryData, load_images
from metaformer_ablate.tasks.classification.metrics import predictions_of
from metaformer_ablate.tasks.classification.module import Classification
from metaformer_ablate.tasks.classification.predictions import at_chance
from metaformer_ablate.tasks.module import Diverged
from metaformer_ablate.training.compute import ComputeSettings, checkpoint_activations

if TYPE_CHECKING:
    from metaformer_ablate.tasks.classification.data.image_files import ImageFileData

logger = logging.getLogger(__name__)


Data: TypeAlias = "InMemoryData | ImageFileData"


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
        self._loaded: tuple[DataSpec, str | None, Data] | None = None

    def data(self, spec: DataSpec) -> Data:
        """The images of a spec: on the training device, or opened where they are read one by one."""
        self.folder.require(spec.name, spec.reader)
        # Of the settings of a set in memory only these change what is loaded; the rest is augmentation.
        of_memory = DataSpec(name=spec.name, image_size=spec.image_size, evaluate_on=spec.evaluate_on)
        key = of_memory if spec.in_memory else spec
        fingerprint = self.folder.fingerprint(spec.name, spec.reader)  # files may change between two runs
        if self._loaded is None or self._loaded[:2] != (key, fingerprint):
            self._loaded = (key, fingerprint, self._load(key))
        return self._loaded[2]

    def _load(self, spec: DataSpec) -> Data:
        if spec.in_memory:
            return load_images(spec, self.folder).to(self.device)
        from metaformer_ablate.tasks.classification.data.image_files import open_image_files

        return open_image_files(spec, self.folder, self.device)

    def run(self, spec: RunSpec, options: RunOptions | None = None) -> Record:
        """Trains a spec, from its last checkpoint where there is one, and writes its record.

        A run that diverges is a result; one that fails is recorded as failed with its reason and log. Raises
        RequestError where its data is missing, StoreError where the results folder cannot be written, Interrupted
        where the options' stop was asked for, and ClaimLost.
        """
        self.data(spec.data)
        self.clear(spec)
        options = options or RunOptions()
        trained = self.train(spec, options)
        with options.stop.polling():  # asked to end now, it ends with its record
            return trained.write(self.store, spec)

    def clear(self, spec: RunSpec) -> None:
        """Moves a record of the run aside: failed, stale, damaged, or asked for once more. It begins from the start."""
        if self.store.read(spec.run_id) is not None or spec.run_id in self.store.problems:
            self.store.set_aside(spec.run_id)

    def train(
        self,
        spec: RunSpec,
        options: RunOptions,
        find_checkpoint: Callable[[RunCallback], Path | None] = lambda watch: watch.find_checkpoint(),
    ) -> RunOutcome:
        """`run` without the record written, and from the checkpoint that is found."""
        data = self.data(spec.data)
        try:
            self.store.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError.of(self.store.path, "its folder runs", error) from error
        watch = self.watch(spec, options)
        common = {
            "epochs": watch.epochs,
            "versions": provenance.versions(),
            "git": provenance.git_state(),
            "data_fingerprint": watch.fingerprint,
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
            predictions = predictions_of(task.logits, task.labels)
            outcome = {"status": "ok", "reason": None, "metrics": metrics}
            outcome["at_chance"] = at_chance(metrics, predictions, spec.data)
        except Diverged as error:
            outcome = {"status": "diverged", "reason": str(error), "metrics": None, "at_chance": None}
        except (RequestError, StoreError, ClaimLost):
            raise
        except Exception as error:  # whatever it is, the runs after this one go on
            outcome = {"status": "failed", "reason": failure_reason(error, spec), "metrics": None, "at_chance": None}
            log = traceback.format_exc()
        record = EMPTY_RECORD | common | outcome | watch.unreadable.to_record()
        record |= {
            "images_seen": watch.steps * spec.train.batch_size,
            "seconds": round(watch.seconds, 3),
            "device": "; then ".join(watch.devices),
            **watch.computing.to_record(),
            "peak_memory_bytes": peak_memory(self.device) if memory_before is not None else None,
            "started": watch.started,
            "ended": now(),
        }
        kept = watch.checkpoints.final if options.keep_checkpoints and outcome["status"] == "ok" else None
        return RunOutcome(record, watch.history, predictions, log, kept)

    def watch(self, spec: RunSpec, options: RunOptions) -> RunCallback:
        name, world = device_name(self.device), spec.train.world
        checkpoints = Checkpoints(self.store.folder(spec.run_id))
        computing = ComputeSettings.on(self.device, spec.train)
        fingerprint = self.folder.fingerprint(spec.data.name, spec.data.reader)
        device = name if world == 1 else f"{world} x {name}"
        return RunCallback(spec, options, checkpoints, device, computing, fingerprint)

    def _train(
        self, spec: RunSpec, data: Data, watch: RunCallback, find_checkpoint: Callable[[RunCallback], Path | None]
    ) -> Classification:
        train, computing = spec.train, watch.computing
        torch.set_num_threads(train.threads)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what the run before kept to itself is for other workers on this GPU too
        else:
            retain_freed_memory()
            if computing.precision == "bf16":
                _warn_of_bf16()
        checkpoint = find_checkpoint(watch)
        net = build_model(spec.model, *spec.data.net_shape, seed=spec.seed, kernels=computing.kernels)
        batch_norm = has_batch_norm(net, train)
        check_hardware(spec, self.device.type, batch_norm)
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
                strategy=choose_strategy(train),
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
                plugins=[cluster_environment(train)],
            )
            # Lightning's handler of SIGTERM ends a run at its next step by SystemExit, whose code is 0, and its place
            # is lost; in a signal's handler it also speaks to the other devices. The options' stop is for that.
            trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
            if batch_norm and train.world > 1 and trainer.is_global_zero:
                logger.info(f"run {spec.run_id}: batch norm is synchronised over {train.world} devices")
            rank, unreadable = trainer.global_rank, watch.unreadable
            loader = data.train_loader(train, spec.seed, watch.resume_at, rank, unreadable)
            shares = data.evaluation_loader(train, rank, unreadable)
            with watch.options.stop.polling():
                trainer.fit(task, loader, shares, ckpt_path=checkpoint, weights_only=True)
        return task


@cache
def _warn_of_bf16() -> None:
    logger.warning("train.precision is bf16 on a CPU, where it takes about ten times as long as fp32")
