"""One RunSpec to one record."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import torch

from metaformer_ablate.data.datasets import facts_of
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import ModelRefused, RequestError, as_text
from metaformer_ablate.models.starting import start_in_words, start_of
from metaformer_ablate.records.checkpoints import Checkpoints
from metaformer_ablate.records.record import Record, StoreError
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.callback import RunCallback
from metaformer_ablate.runs.options import ClaimLost, RunOptions
from metaformer_ablate.runs.outcome import EMPTY_RECORD, RunOutcome, cost_of, failure_reason
from metaformer_ablate.runs.prepare import build_module
from metaformer_ablate.runs.trainer import make_trainer, quiet_lightning
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system import provenance
from metaformer_ablate.system.clock import now
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.system.memory import peak_memory, retain_freed_memory, start_peak_memory
from metaformer_ablate.tasks.base import TaskData
from metaformer_ablate.tasks.module import Diverged, TaskModule
from metaformer_ablate.tasks.registry import DEFAULT, task_of
from metaformer_ablate.training.compute import ComputeSettings, repeatable

logger = logging.getLogger(__name__)

BF16_ON_CPU = "train.precision is bf16 on a CPU, where it takes about ten times as long as fp32"


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
        self._opened: tuple[Hashable, TaskData] | None = None
        self._logged: set[str] = set()

    def data(self, spec: RunSpec) -> TaskData:
        """What a run is trained and evaluated on, as its task opens it. Raises RequestError where it is missing."""
        task, name, reader = task_of(spec), spec.data.name, spec.data.reader
        self.folder.require(name, reader)
        part = task.part("data")
        # Files may change between two runs.
        key = (task.name, part.data_key(spec), self.folder.fingerprint(name, reader))
        if self._opened is None or self._opened[0] != key:
            self._opened = (key, part.open_data(spec, self.folder, self.device))
            for note in self._opened[1].notes:
                self._log_once(logging.INFO, f"note: {note}")
        return self._opened[1]

    def _log_once(self, level: int, text: str) -> None:
        """However many runs it is true of."""
        if text not in self._logged:
            self._logged.add(text)
            logger.log(level, text)

    def run(self, spec: RunSpec, options: RunOptions | None = None) -> Record:
        """Trains a spec, from its last checkpoint where there is one, and writes its record.

        A run that diverges is a result; one that fails is recorded as failed with its reason and log. Raises
        RequestError where its data is missing, StoreError where the results folder cannot be written, Interrupted
        where the options' stop was asked for, and ClaimLost.
        """
        self.data(spec)
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
        find_checkpoint: Callable[[RunCallback], Path | None] = RunCallback.find_checkpoint,
    ) -> RunOutcome:
        """`run` without the record written, and from the checkpoint that is found."""
        data, task = self.data(spec), task_of(spec)
        try:
            self.store.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError.of(self.store.path, "its folder runs", error) from error
        callback = self.callback(spec, options)
        record = EMPTY_RECORD | {"versions": provenance.versions(), "git": provenance.git_state()}
        predictions = log = None
        memory_before = start_peak_memory(self.device)
        try:
            names = data.classes or facts_of(spec.data.model_dump()).known_classes
            record |= cost_of(spec) | {"classes": list(map(as_text, names)) or None}
            module = self.fit(spec, data, callback, find_checkpoint)
            last = callback.history[-1]
            metrics = {
                metric.name: last[f"val_{metric.name}"] for metric in task.metrics if f"val_{metric.name}" in last
            }
            record |= {"status": "ok", "metrics": metrics, "at_chance": module.at_chance(metrics)}
            if (start := start_of(module.net)) is not None:
                record["start"] = start
            predictions = module.predictions
        except Diverged as error:
            record |= {"status": "diverged", "reason": str(error)}
        except ModelRefused as error:  # of this row; the runs after it go on
            record |= {"status": "failed", "reason": str(error)}
            log = f"{error}\n"
        except (RequestError, StoreError, ClaimLost):
            raise
        except Exception as error:  # whatever it is, the runs after this one go on
            record |= {"status": "failed", "reason": failure_reason(error, spec)}
            log = traceback.format_exc()
        record |= callback.to_record()
        record |= {"peak_memory_bytes": peak_memory(self.device) if memory_before is not None else None, "ended": now()}
        if task.name != DEFAULT:
            record["task"] = task.name
        kept = callback.checkpoints.final if options.keep_checkpoints and record["status"] == "ok" else None
        return RunOutcome(record, callback.history, predictions, log, kept)

    def callback(self, spec: RunSpec, options: RunOptions) -> RunCallback:
        name, world = device_name(self.device), spec.train.world
        checkpoints = Checkpoints(self.store.folder(spec.run_id))
        computing = ComputeSettings.on(self.device, spec.train)
        fingerprint = self.folder.fingerprint(spec.data.name, spec.data.reader)
        device = name if world == 1 else f"{world} x {name}"
        return RunCallback(spec, options, checkpoints, device, computing, fingerprint)

    def fit(
        self,
        spec: RunSpec,
        data: TaskData,
        callback: RunCallback,
        find_checkpoint: Callable[[RunCallback], Path | None] = RunCallback.find_checkpoint,
    ) -> TaskModule:
        """The trained module of a run."""
        train, computing = spec.train, callback.computing
        torch.set_num_threads(train.threads)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what the run before kept to itself is for other workers on this GPU too
        else:
            retain_freed_memory()
            if computing.precision == "bf16":
                self._log_once(logging.WARNING, BF16_ON_CPU)
        checkpoint = find_checkpoint(callback)
        module, batch_norm = build_module(spec, data, computing, self.device)
        if (said := start_in_words(module.net)) is not None:
            self._log_once(logging.INFO, f"note: of model.init_from a run starts with {said}")
        callback.steps_per_epoch = module.steps_per_epoch
        with quiet_lightning():
            trainer = make_trainer(train, self.peers, computing, callback, batch_norm)
            if batch_norm and train.world > 1 and trainer.is_global_zero:
                logger.info(f"run {spec.run_id}: batch norm is synchronised over {train.world} devices")
            rank, unreadable = trainer.global_rank, callback.unreadable
            loader = data.train_loader(train, spec.seed, callback.resume_at, rank, unreadable)
            shares = data.evaluation_loader(train, rank, unreadable)
            gpu = self.device.type == "cuda"
            with repeatable(gpu) as callback.not_repeatable, callback.options.stop.polling():
                trainer.fit(module, loader, shares, ckpt_path=checkpoint, weights_only=True)
        return module
