"""What Weights & Biases is told: a W&B run for each run, its record, and the table at the end.

W&B is a guest. Whatever goes wrong with it is a warning on standard error and the run goes on. Nothing here asks for a
login: without one, or without a network, W&B's own offline files are written, which `wandb sync` sends.

The id of a W&B run follows from ours, and W&B's step is our optimiser step. So a run that is resumed goes on in the
same W&B run, and what is told twice stands there once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted
from metaformer_ablate.tracking.sent import mark_sent, marks_folder
from metaformer_ablate.tracking.table import COLUMNS, table_lines

if TYPE_CHECKING:
    from torch import Tensor

    from metaformer_ablate.spec.plan import Plan


PROJECT = "metaformer_ablate"


LOSS_EVERY = 50  # steps between two losses of a single step


INIT_SECONDS = 60.0  # for W&B to begin a run


FINISH_SECONDS = 20.0  # for it to end one: less than a W&B agent gives a run that it stops


LONGEST_NAME = 128  # of a W&B run or group


_warned: set[str] = set()


_open: Tracker | None = None


def _warn(text: str, error: BaseException | None = None) -> None:
    """A warning, each one once."""
    from metaformer_ablate.system.console import say

    if text not in _warned:
        _warned.add(text)
        why = f" ({type(error).__name__}: {' '.join(str(error).split())[:200]})" if error is not None else ""
        say(f"warning: {text}{why}")


def _wandb() -> Any:
    import wandb

    wandb.setup(wandb.Settings(silent=True, console="off"))
    return wandb


def resolve_tracking(project: str | None, entity: str | None = None, **labels: Any) -> dict[str, Any] | None:
    """What runs are tracked by, as plain values for `RunRequest.wandb`: project, entity, mode and the labels given.

    Decides once for all runs whether they go online. A WANDB_MODE in the environment stands, but online without a
    login or a network is offline. None, with a warning, where wandb cannot be used; None where it is switched off.
    With the label `agent` runs are logged into the one that a W&B agent has ready; without it, under an agent, that is
    a RequestError: W&B would take all of them for that one.
    """
    if os.environ.get("WANDB_SWEEP_ID") and not labels.get("agent"):
        raise RequestError("WANDB_SWEEP_ID is set: a W&B agent has one run ready; have it call `ablate trial`")
    mode = os.environ.get("WANDB_MODE") or "online"
    mode = {"dryrun": "offline", "run": "online"}.get(mode, mode)
    if mode == "disabled":
        return None
    try:
        wandb = _wandb()
    except (Exception, SystemExit) as error:
        _warn("wandb cannot be used, so nothing is logged to it", error)
        return None
    if mode == "online":
        try:
            if not wandb.login(prompt=False):
                mode = "offline"
                _warn("no W&B login (`wandb login`), so runs are logged offline, for `wandb sync`")
        except (Exception, SystemExit) as error:
            mode = "offline"
            _warn(_UNREACHED, error)
    # Workers have a W&B service of their own: in one that is shared, a run whose worker was killed would stay open.
    os.environ.pop("WANDB_SERVICE", None)
    return {"project": project or os.environ.get("WANDB_PROJECT") or PROJECT, "entity": entity, "mode": mode, **labels}


_UNREACHED = "W&B cannot be reached, so runs are logged offline, for `wandb sync`"


_FAILED = "W&B failed; runs go on without it"


def in_agent() -> bool:
    """Whether a W&B agent called this process and has a W&B run ready for it."""
    return bool(os.environ.get("WANDB_SWEEP_ID") or os.environ.get("WANDB_RUN_ID"))


def wandb_id(run_id: str, project: str, fingerprint: str | None, versions: Mapping[str, str] | None) -> str:
    """The id of a run's W&B run. Runs of other data or versions go from the beginning, so theirs is another one."""
    return f"{run_id}-{digest([project, fingerprint, dict(versions or {})])[:8]}"


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
            _warn(_FAILED, error)

    return guarded


class Tracker:
    """Tells a W&B run, `run`, of one of ours. `run` is None where W&B has failed."""

    def __init__(self, run: Any):
        self.run: Any = run
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

        self.run.log({"table": wandb.Table(columns=COLUMNS, data=table_lines(table), allow_mixed_types=True)})
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
        values = {name: float(line[key]) for key, name in _NAMES.items()}
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


# Columns of history.csv, and what W&B calls them. None is a key of record.json: in W&B's summary both lie side by side.
_NAMES = {
    "train_loss": "train/loss",
    "lr": "train/lr",
    "val_loss": "val/loss",
    "val_top1": "val/top1",
    "val_top5": "val/top5",
    "seconds": "train/seconds",
}


@contextmanager
def track_run(
    how: Mapping[str, Any] | None,
    spec: RunSpec,
    store: Store,
    fingerprint: str | None,
    versions: Mapping[str, str] | None,
) -> Iterator[Tracker | None]:
    """A W&B run around what is done with one of ours; None where `how` is. Finished at the end, whatever it is.

    One that is open already in this process, as that of a trial, is given and left open.
    """
    global _open
    if how is None or _open is not None:
        yield _open
        return
    rows = list(how.get("rows") or ())
    experiment, _, row = rows[0].partition("/") if rows else ("", "", "")
    labels = {"experiment": experiment or None, "row": row or None, "rows": rows}
    labels |= {key: how.get(key) for key in ("recipe", "overrides")}
    # Runs of a group differ in their seeds alone, so that a mean over one is a mean over seeds.
    family = f"{how.get('recipe') or ''} {spec.with_seed(0).run_id[:6]}".strip()
    run = _start(
        how,
        store,
        id=wandb_id(spec.run_id, how["project"], fingerprint, versions),
        name=_fitting(rows[0] if rows else spec.run_id, f"seed {spec.seed}"),
        group=_fitting(rows[0] if rows else "", family),
        job_type="train",
        config={"run_id": spec.run_id, **labels, **spec.to_dict()},
    )
    tracker = _open = Tracker(run)
    try:
        yield tracker
    except Interrupted:
        tracker.preempted()
        raise
    finally:
        _open = None
        tracker.finish(store, 0 if tracker.record is not None and tracker.record.status != "failed" else 1)


def _fitting(text: str, end: str) -> str:
    return f"{text[: LONGEST_NAME - len(end) - 1]} {end}".strip()


def _start(how: Mapping[str, Any], store: Store, **of_run: Any) -> Any:
    """A W&B run, offline where it cannot be had online; None, with a warning, where it cannot be had at all."""
    for mode in dict.fromkeys((how["mode"], "offline")):
        try:
            return _logger(how, store, mode, of_run).experiment
        except (Exception, SystemExit) as error:
            _warn(_FAILED if mode == "offline" else _UNREACHED, error)
    return None


def _logger(how: Mapping[str, Any], store: Store, mode: str, of_run: dict[str, Any]) -> Any:
    """Lightning's logger. The Trainer does not get it: it would log evaluations a step early and leave out the rest."""
    from pytorch_lightning.loggers import WandbLogger

    wandb = _wandb()
    if wandb.run is not None:  # of a run before this one, which W&B failed to finish
        wandb.finish(exit_code=1)
    if how.get("agent"):
        of_run = {**of_run, "id": None}  # the agent's, from the environment
    marks_folder(store).mkdir(
        parents=True, exist_ok=True
    )  # W&B takes a folder `.wandb` for its own files where it finds one
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
    )


def log_table(how: Mapping[str, Any], table: Mapping[str, Any], plan: Plan, store: Store) -> None:
    """A table as `build_table` makes it, in a W&B run of its own; the same table again is a new version of it."""
    name = f"{table['experiment']} under {table['recipe']}"
    identity = digest([how["project"], name, {row: spec.run_id for row, spec in plan.specs.items()}])
    config = {key: table[key] for key in ("experiment", "recipe")} | {"overrides": how.get("overrides")}
    run = _start(
        how,
        store,
        id=f"table-{identity[:12]}",
        name=_fitting(name, "table"),
        group=_fitting(table["experiment"], "tables"),
        job_type="table",
        config=config,
    )
    tracker = Tracker(run)
    tracker.table(table)
    tracker.finish(store, 0)
