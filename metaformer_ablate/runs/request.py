"""A run that is asked for, and how it ended: plain values, which travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunRequest:
    """A run to be executed somewhere: plain values, so that it travels as JSON. Paths are absolute."""

    spec: dict[str, Any]  # RunSpec.to_dict() and what of the spec is not part of its id
    results: str
    data: str | None  # the folder that the user named; None: the default one
    device: str
    name: str  # "pooling_size/pool3 seed 0": what people call it
    run_id: str
    replaces: str | None = None  # checksum of the record, failed or stale, that it is to replace
    keep_checkpoints: bool = False
    checkpoint_seconds: float = 15.0
    dead_claim: str | None = None  # token of a claim whose owner was seen to be dead
    wandb: dict[str, Any] | None = None  # what `Tracking.run` tells W&B by


@dataclass(frozen=True)
class RunResult:
    """How a request ended. Everything else there is to know of a run is in its record and its claim.

    recorded: its record is there; busy: somebody else trains it; stopped: asked to stop, its place is saved; died: the
    process is gone or was killed; unstarted: there was no process to begin it; request, store: a RequestError or
    StoreError with this text.
    """

    run_id: str
    outcome: str
    text: str = ""
