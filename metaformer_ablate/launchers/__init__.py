"""Where runs execute. A launcher moves an `Order` to a place where `run.execute` carries it out; one file each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from metaformer_ablate.claims import Progress


@dataclass(frozen=True)
class Order:
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
    dead: str | None = None  # token of a claim whose owner was seen to be dead
    wandb: dict[str, Any] | None = None  # what `tracking.follow` tells W&B by


@dataclass(frozen=True)
class Ended:
    """How an order ended. Everything else there is to know of a run is in its record and its claim.

    recorded: its record is there; busy: somebody else trains it; stopped: asked to stop, its place is saved; died: the
    process is gone or was killed; request, store: a RequestError or StoreError with this text.
    """

    run_id: str
    outcome: str
    text: str = ""


class Launcher(Protocol):
    """What the sweep needs of a launcher."""

    queues: bool  # whether orders wait for their turn: they have begun once they are claimed
    report: Callable[[str, Progress], None]  # set by the sweep; for a launcher that hears of progress before claims do

    @property
    def capacity(self) -> int:
        """Orders at once; may change as nodes come and go."""
        ...

    def submit(self, order: Order) -> None:
        """Begins an order; fewer than `capacity` are under way."""

    def wait(self, seconds: float) -> list[Ended]:
        """The orders that have ended, as soon as there is one; empty after `seconds`."""
        ...

    def kill(self, run_id: str) -> None:
        """Ends an order that hangs, unless it only waits for its turn; it is then `died`."""

    def stop(self) -> None:
        """Asks what is under way to save its place and end; `wait` then tells of each."""

    def close(self) -> None:
        """Ends everything and lets go of what the launcher holds."""


def choose(name: str, **options: Any) -> Launcher:
    """A launcher by name: local, ray or slurm. Raises RequestError for another name, or where its extra is missing."""
    from importlib import import_module

    from metaformer_ablate.spec import unknown
    from metaformer_ablate.yaml_reader import RequestError

    if name not in LAUNCHERS:
        raise RequestError(f"--launcher: {unknown('launcher', name, LAUNCHERS)}")
    make: Callable[..., Launcher] = import_module(f"metaformer_ablate.launchers.{name}").launcher
    return make(**options)


LAUNCHERS = ("local", "ray", "slurm")
