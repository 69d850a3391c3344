"""One run of Weights & Biases: what it is told of one of our runs, or of a table, and how it is opened."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.tracking.sent import mark_sent, marks_folder
from metaformer_ablate.tracking.table import table_columns, table_lines

if TYPE_CHECKING:
    from torch import Tensor


LOSS_EVERY = 50  # steps between two losses of a single step


INIT_SECONDS = 60.0  # for W&B to begin a run


FINISH_SECONDS = 20.0  # for it to end one: less than a W&B agent gives a run that it stops


FAILED = "W&B failed; runs go on without it"


def load_wandb() -> Any:
    """W&B's package, told to print nothing."""
    import wandb

    wandb.setup(wandb.Settings(silent=True, console="off"))
    return wandb


def _quietly(method: Callable[..., None]) -> Callable[..., None]:
    """A method of Tracker that does nothing once W&B has failed."""

    @wraps(method)
    def guarded(self: Tracker, *arguments: Any) -> None:
        if self.run is None:
            return
        try:
            method(self, *arguments)
        except (Exception, SystemExit) as error:
            self.run = None
            self._warn(FAILED, error)

    return guarded


class Tracker:
    """Tells a W&B run, `run`, of one of ours. `run` is None where W&B has failed; `warn` is told why."""

    def __init__(self, run: Any, warn: Callable[[str, BaseException], None]):
        self.run: Any = run
        self._warn = warn
        self.record: Record | None = None
        self._next: int | None = None  # the first step that W&B does not have
        self._losses: list[tuple[int, Tensor]] = []

    def loss(self, step: int, loss: Tensor) -> None:
        """The loss of a step, counted from 1; kept where it lies until the epoch's end, where a GPU is waited for."""
        if step % LOSS_EVERY == 0 and self.run is not None:
            self._losses.append((step, loss.detach()))

    @_quietly
    def epoch(self, line: Mapping[str, float]) -> None:
        """A line of the history. One that W&B has already is left out."""
        self._tell(line)

    @_quietly
    def end(self, record: Record) -> None:
        """The record of the run: lines of its history that W&B lacks, then all of record.json as the summary."""
        for line in record.history():
            self._tell(line)
        self.run.summary.update({key: value for key, value in record.data.items() if key != "checksums"})
        self.record = record

    @_quietly
    def preempted(self) -> None:
        """Has W&B queue the run again once the process has ended."""
        self.run.mark_preempting()

    @_quietly
    def table(self, table: Mapping[str, Any]) -> None:
        """A table as `build_table` makes it."""
        import wandb

        columns, lines = table_columns(table), table_lines(table)
        self.run.log({"table": wandb.Table(columns=columns, data=lines, allow_mixed_types=True)})
        self.run.summary.update({"warnings": table["warnings"]})

    @_quietly
    def finish(self, store: Store, exit_code: int) -> None:
        """Ends the W&B run, which without that would take what comes after it; marks the record as sent."""
        run = self.run
        self._tell_losses()
        where = {"id": run.id, "project": run.project, "mode": run.settings.mode}
        run.finish(exit_code=exit_code)
        if self.record is not None:
            mark_sent(store, self.record, where)

    def _tell(self, line: Mapping[str, float]) -> None:
        step = int(line["step"])
        self._tell_losses(step)
        values = {_name(key): float(value) for key, value in line.items() if key not in ("epoch", "step")}
        self._log(step, {"epoch": int(line["epoch"]), **values})

    def _tell_losses(self, before: float = math.inf) -> None:
        for step, loss in self._losses:
            if step < before:
                self._log(step, {"train/loss_step": float(loss)})
        self._losses.clear()

    def _log(self, step: int, values: dict[str, Any]) -> None:
        if self._next is None:
            self._next = self.run.step
        if step >= self._next:
            self.run.log({**values, "trainer/global_step": step}, step=step)
            self._next = step + 1


# Columns of history.csv that are no metric. No name in W&B is a key of record.json: in its summary both stand together.
_NAMES = {"train_loss": "train/loss", "lr": "train/lr", "seconds": "train/seconds"}


def _name(column: str) -> str:
    """What W&B calls a column of history.csv: a metric of the evaluation is val/<name>."""
    return _NAMES.get(column) or f"val/{column.removeprefix('val_')}"


def open_run(how: Mapping[str, Any], store: Store, mode: str, of_run: dict[str, Any]) -> Any:
    """A W&B run, begun by Lightning's logger.

    The Trainer does not get the logger: it would log evaluations a step early and leave out the rest.
    """
    from pytorch_lightning.loggers import WandbLogger

    wandb = load_wandb()
    if wandb.run is not None:  # of a run before this one, which W&B failed to finish
        wandb.finish(exit_code=1)
    if how.get("agent"):
        of_run = {**of_run, "id": None}  # the agent's, from the environment
    # W&B takes a folder `.wandb` for its own files where it finds one.
    marks_folder(store).mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "init_timeout": INIT_SECONDS,
        "finish_timeout": FINISH_SECONDS,
        "finish_timeout_raises": True,
    }
    # W&B would send the host, the user's paths, the command line and the git remote of whatever folder one stands in.
    settings |= {
        "disable_git": True,
        "save_code": False,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "host": "",
    }
    return WandbLogger(
        save_dir=os.environ.get("WANDB_DIR") or str(store.path.resolve()),
        project=how["project"],
        entity=how["entity"],
        mode=mode,
        settings=wandb.Settings(silent=True, console="off", **settings),
        **of_run,
    ).experiment
