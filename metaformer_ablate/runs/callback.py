"""The callback of a run: history, checkpoints, progress, stops."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.records.checkpoints import FINAL, LAST, Checkpoints
from metaformer_ablate.records.claims import Progress
from metaformer_ablate.records.record import StoreError
from metaformer_ablate.runs.options import ClaimLost, RunOptions
from metaformer_ablate.runs.resume import (
    STATE_KEY,
    Identity,
    ResumePoint,
    find_resume_point,
    read_resume_point,
    rescale_batch_counts,
)
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system import provenance
from metaformer_ablate.system.clock import now
from metaformer_ablate.system.signals import Interrupted
from metaformer_ablate.tasks.module import Diverged, TaskModule
from metaformer_ablate.tasks.registry import task_of
from metaformer_ablate.training.compute import ComputeSettings
from metaformer_ablate.training.optim import learning_rate

# Between two reports of how far a run is.
PROGRESS_SECONDS = 0.5


class RunCallback(pl.Callback):
    """Writes the history and the checkpoints, stops a run that is not finite or not wanted, and reports how far it is.

    Its state is in each checkpoint, so that a run that is resumed has the history of one that was not disturbed.
    """

    state_key = STATE_KEY

    def __init__(
        self,
        spec: RunSpec,
        options: RunOptions,
        checkpoints: Checkpoints,
        device: str,
        computing: ComputeSettings,
        fingerprint: str | None,
    ):
        self.spec, self.options, self.checkpoints, self.computing = spec, options, checkpoints, computing
        self.fingerprint = fingerprint
        self.task = task_of(spec)
        self.history: list[dict[str, float]] = []
        # As the spec says; the runner sets it to what the data that was opened comes to.
        self.steps_per_epoch = spec.data.split_sizes()[0] // spec.train.batch_size
        self.steps = 0
        self.devices = [device]
        self.code = [provenance.git_state()]  # of each attempt that was trained with other code than the one before
        self.started = now()
        self.resume_at = (0, 0)  # epoch and batch to begin with
        self.not_repeatable: set[str] = set()  # operators that give other bits each time
        self.unreadable = Unreadable(spec.data.max_unreadable or 0)
        self._start = self._last_report = self._saved = time.perf_counter()
        self._since = (0, self._start)

    @property
    def epochs(self) -> int:
        """Lines of history that the run ends with."""
        return self.spec.train.all_epochs(self.steps_per_epoch)

    @property
    def seconds(self) -> float:
        """Training time, over all attempts; what was trained after the last checkpoint of an attempt is not in it."""
        return time.perf_counter() - self._start

    # Checkpoints

    def find_checkpoint(self) -> Path | None:
        """The checkpoint to go on from, whose place `resume_at` then is; None to begin at the beginning.

        Raises StoreError where one that is not this run's cannot be set aside.
        """
        return self._begin_at(find_resume_point(self.checkpoints, self.identity))

    def use_checkpoint(self, path: Path | None) -> Path | None:
        """`find_checkpoint`, where another process has found it."""
        return self._begin_at(None if path is None else read_resume_point(path))

    def _begin_at(self, point: ResumePoint | None) -> Path | None:
        if point is None:
            return None
        self.resume_at = (point.epoch, point.batch)
        return point.path

    @property
    def identity(self) -> Identity:
        return Identity(self.spec.run_id, self.fingerprint, provenance.versions(), self.computing.to_record())

    def state_dict(self) -> dict[str, Any]:
        epoch, batch = self.resume_at
        return {
            "history": self.history,
            "steps": self.steps,
            "seconds": self.seconds,
            "devices": self.devices,
            "code": self.code,
            "started": self.started,
            "epoch": epoch,
            "batch": batch,
            "accumulation": self.spec.train.accumulation,
            "identity": self.identity.to_state(),
            "unreadable": self.unreadable.found,
        }

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Lightning counts the parts that a device takes; where there were more or fewer of them, it counts anew."""
        then = checkpoint["callbacks"][self.state_key]["accumulation"]
        rescale_batch_counts(checkpoint, then, self.spec.train.accumulation)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history, self.steps, self.started = state["history"], state["steps"], state["started"]
        self.devices = list(dict.fromkeys([*state["devices"], *self.devices]))
        earlier = state.get("code", [])  # which checkpoints lack that were written before it was kept
        self.code = earlier if earlier[-1:] == self.code else [*earlier, *self.code]
        self.unreadable.add(state["unreadable"])
        self._start = time.perf_counter() - state["seconds"]

    def _save(self, trainer: pl.Trainer, epoch: int, batch: int, name: str = LAST) -> None:
        self._require_results()
        if self.options.claim is not None and not self.options.claim.holds():  # it would lie beside another's record
            raise ClaimLost(self.spec.run_id)
        self.resume_at = (epoch, batch)
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

    def to_record(self) -> dict[str, Any]:
        """What a record holds of the course of a run."""
        return {
            "epochs": self.epochs,
            "data_fingerprint": self.fingerprint,
            "images_seen": self.steps * self.spec.train.batch_size,
            "seconds": round(self.seconds, 3),
            "device": "; then ".join(self.devices),
            "started": self.started,
            **self.computing.to_record(),
            **({"earlier_code": self.code[:-1]} if self.code[1:] else {}),
            **({"not_repeatable": sorted(self.not_repeatable)} if self.not_repeatable else {}),
            **self.unreadable.to_record(),
        }

    # Hooks

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        now = time.perf_counter()
        if not self.steps:
            self._start = now
        self._last_report = self._saved = now

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._since = (self.steps, time.perf_counter())
        if self.options.tracker is not None:
            for line in self.history:
                self.options.tracker.epoch(line)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._since = (self.steps, time.perf_counter())

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, out: Any, batch: Any, i: int) -> None:
        if (i + 1) % self.spec.train.accumulation:
            return  # in the middle of a step
        self.steps += 1
        if self.options.tracker is not None:
            self.options.tracker.loss(self.steps, out["loss"])
        all_steps = self.spec.train.all_steps(self.steps_per_epoch)
        last = i + 1 == trainer.num_training_batches
        if self.steps == all_steps and not last:  # Lightning evaluates, and ends the epoch and the fit
            trainer.should_stop = last = True
        stop, due = self._poll_requests(trainer)
        # After the last step of an epoch the evaluation comes first: then the epoch's line of history is saved too.
        if not last and (stop or due):
            self._save(trainer, trainer.current_epoch, (i + 1) // self.spec.train.accumulation)
        if stop and not last:
            raise Interrupted(self.options.stop.number or 0)
        if time.perf_counter() - self._last_report > PROGRESS_SECONDS:
            self._report_progress(self.steps / all_steps)

    def _poll_requests(self, trainer: pl.Trainer) -> tuple[bool, bool]:
        """Whether an end is asked for, and whether a checkpoint is due: on any device, so that all do the same."""
        asked = self.options.stop(), time.perf_counter() - self._saved >= self.options.checkpoint_seconds
        if trainer.world_size > 1:
            told = torch.tensor([*asked, self.options.stop.number or 0], device=trainer.strategy.root_device)
            stop, due, number = trainer.strategy.all_gather(told).amax(0).tolist()
            self.options.stop.number = number or None
            asked = bool(stop), bool(due)
        return asked

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, TaskModule)
        self._gather_unreadable(trainer)
        train_loss = module.finish_epoch()
        measured = trainer.callback_metrics
        lacking = {name for name in self.task.history if f"val/{name}" not in measured}
        assert all(self.task.metric(name).optional for name in lacking), lacking
        values = {f"val_{name}": measured[f"val/{name}"].item() for name in self.task.history if name not in lacking}
        # The last step of an epoch can break the weights after a loss that was still finite.
        if not all(map(math.isfinite, (train_loss, *values.values()))):
            raise Diverged(self.steps)
        self.history.append(
            {
                "epoch": trainer.current_epoch + 1,
                "step": self.steps,
                "lr": learning_rate(module.spec, self.steps - 1, module.steps_per_epoch),  # of the epoch's last step
                "train_loss": train_loss,
                **values,
                "seconds": round(self.seconds, 3),
            }
        )
        if self.options.tracker is not None:
            self.options.tracker.epoch(self.history[-1])
        ended = len(self.history) == self.epochs
        stop, due = self._poll_requests(trainer)
        if self.options.keep_checkpoints if ended else (stop or due):
            self._save(trainer, trainer.current_epoch + 1, 0, FINAL if ended else LAST)
        if stop and not ended:
            raise Interrupted(self.options.stop.number or 0)
        self._report_progress(self.steps / self.spec.train.all_steps(self.steps_per_epoch))

    def _require_results(self) -> None:
        if not (runs := self.checkpoints.folder.parent).is_dir():  # whoever removed it wants no records
            raise StoreError(f"{runs.parent}: the results folder was removed while run {self.spec.run_id} trained")

    def _report_progress(self, share: float) -> None:
        self._last_report = time.perf_counter()
        self._require_results()
        last = self.history[-1] if self.history else None
        steps, since = self._since
        rate = (self.steps - steps) * self.spec.train.batch_size / max(self._last_report - since, 1e-9)
        progress = Progress(
            epoch=len(self.history),
            epochs=self.epochs,
            share=share,
            train_loss=last["train_loss"] if last else None,
            metrics={k.removeprefix("val_"): v for k, v in last.items() if k.startswith("val_")} if last else None,
            images_per_second=rate,
            task=self.task.name,
        )
        self.options.tell(progress)
