"""Where runs execute. A launcher moves a `RunRequest` to a place where `runs.worker.execute` carries it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from metaformer_ablate.records.claims import Progress
from metaformer_ablate.runs.request import RunRequest, RunResult


class NoWorkers(Exception):
    """A launcher can begin nothing any more; why."""


class Launcher(Protocol):
    """What the sweep needs of a launcher."""

    queues: bool  # whether requests wait for their turn: they have begun once they are claimed
    report: Callable[[str, Progress], None]  # set by the sweep; for a launcher that hears of progress before claims do

    @property
    def capacity(self) -> int:
        """Requests at once; may change as nodes come and go."""
        ...

    def submit(self, request: RunRequest) -> None:
        """Begins a request; fewer than `capacity` are under way."""

    def wait(self, seconds: float) -> list[RunResult]:
        """The requests that have ended, as soon as there is one; empty after `seconds`. Raises NoWorkers."""
        ...

    def kill(self, run_id: str) -> None:
        """Ends a request that hangs, unless it only waits for its turn; it is then `died`."""

    def stop(self) -> None:
        """Asks what is under way to save its place and end; `wait` then tells of each."""

    def close(self) -> None:
        """Ends everything and lets go of what the launcher holds."""


def choose(name: str, **options: Any) -> Launcher:
    """A launcher by name: local, ray or slurm. Raises RequestError for another name, or where its extra is missing."""
    from importlib import import_module

    from metaformer_ablate.errors import RequestError, unknown

    if name not in LAUNCHERS:
        raise RequestError(f"--launcher: {unknown('launcher', name, LAUNCHERS)}")
    make: Callable[..., Launcher] = import_module(f"metaformer_ablate.sweep.launchers.{name}").launcher
    return make(**options)


LAUNCHERS = ("local", "ray", "slurm")
