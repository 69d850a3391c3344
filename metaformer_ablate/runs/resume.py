"""Where a run goes on: whose a checkpoint is, which one is taken, and what Lightning has counted in it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from metaformer_ablate.records.checkpoints import Checkpoints
from metaformer_ablate.records.record import StoreError

logger = logging.getLogger(__name__)

# Of the callback's state in a checkpoint; Lightning's own key is the name of the class.
STATE_KEY = "run"


class OtherRun(Exception):
    """Why a checkpoint is not this run's: of another run, or of one that computed otherwise or from other data."""


@dataclass(frozen=True)
class Identity:
    """What has to be the same where a run goes on from a checkpoint: it would be half of each otherwise."""

    run_id: str
    data_fingerprint: str | None
    versions: dict[str, Any]
    computing: dict[str, Any]

    def to_state(self) -> dict[str, Any]:
        return asdict(self)

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raises OtherRun where what a checkpoint holds (`to_state`) is not this."""
        if saved["run_id"] != self.run_id:
            raise OtherRun(f"is of another run ({saved['run_id']})")
        if (then := saved["data_fingerprint"]) != self.data_fingerprint:
            raise OtherRun(f"is of other data (fingerprint {then}, today {self.data_fingerprint})")
        if saved["versions"] != self.versions:
            raise OtherRun(f"was written with other versions ({_changes(saved['versions'], self.versions)})")
        if saved["computing"] != self.computing:
            raise OtherRun(f"was computed otherwise ({_changes(saved['computing'], self.computing)})")


def _changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    return "; ".join(f"{name} {then.get(name)}, now {now.get(name)}" for name in names)


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint and where its run goes on: epoch, and batch of it, from 0."""

    path: Path
    epoch: int
    batch: int


def read_resume_point(path: Path, identity: Identity | None = None) -> ResumePoint:
    """Where a checkpoint ends. Raises OtherRun where it is not that of `identity`, if one is given."""
    states = torch.load(path, map_location="cpu", weights_only=True)["callbacks"]
    if STATE_KEY not in states:
        raise OtherRun("was written by other code, which did not note whose it is")
    state = states[STATE_KEY]
    if identity is not None:
        identity.check(state["identity"])
    return ResumePoint(path, state["epoch"], state["batch"])


def find_resume_point(checkpoints: Checkpoints, identity: Identity) -> ResumePoint | None:
    """The newest checkpoint of a run; None to begin at the beginning.

    One of another run, other data or versions, or another precision is set aside: nobody could train such a run again.
    Raises StoreError where that cannot be done.
    """
    while (path := checkpoints.newest()) is not None:
        try:
            return read_resume_point(path, identity)
        except OtherRun as error:
            reason = str(error)
        except (KeyError, TypeError, AttributeError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
            reason = f"cannot be read ({type(error).__name__})"
        try:
            aside = checkpoints.set_aside(path)
        except OSError as error:
            raise StoreError.of(checkpoints.folder, f"the checkpoint {path.name}", error) from error
        then = "begins at its beginning" if checkpoints.newest() is None else "tries the one before it"
        logger.warning(f"the checkpoint {path} {reason}; it was set aside as {aside}, and the run {then}")
    return None


def rescale_batch_counts(checkpoint: dict[str, Any], then: int, now: int) -> None:
    """Makes Lightning's counts of batches those of `now` batches per step, where a checkpoint has `then`.

    This is private to Lightning: `tests/runs/test_resume.py` says when the counts are elsewhere.
    """
    if then == now:
        return
    for counts in checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"].values():
        if isinstance(counts, dict):
            under_way = counts["ready"] - counts["completed"]
            counts.update({key: value * now // then for key, value in counts.items()})
            counts["completed"] = counts["ready"] - under_way
