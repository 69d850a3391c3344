"""How runs are carried out, as options say it. Loads nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from metaformer_ablate.errors import RequestError, shown


@dataclass(frozen=True)
class Execution:
    """How runs are carried out; none of it can change a result."""

    launcher: str = "local"
    workers: int | None = None
    slurm: tuple[str, ...] = ()
    keep_checkpoints: bool = False
    checkpoint_seconds: float = 15.0
    stall_minutes: float = 30.0

    def options(self) -> dict[str, Any]:
        """What the launcher is made with. Raises RequestError for an option of another launcher."""
        if self.launcher != "slurm" and self.slurm:
            raise RequestError(f"--slurm {self.slurm[0]} is for --launcher slurm; here it is {self.launcher}")
        return {"workers": self.workers, "slurm": self.slurm}

    def saved(self) -> dict[str, Any]:
        """What a request says of checkpoints."""
        return {"keep_checkpoints": self.keep_checkpoints, "checkpoint_seconds": self.checkpoint_seconds}


def read_workers(given: str | None, called: str) -> int | None:
    """A number of workers out of its text; None without one. Raises RequestError for what is none."""
    if given is not None and not re.fullmatch("[0-9]{1,6}", given):
        raise RequestError(f"{called} is {shown(given)}; allowed: an integer of at least 0, below a million")
    return None if given is None else int(given)


def check_hours(hours: float | None, called: str) -> None:
    if hours is not None and not hours > 0:
        raise RequestError(f"{called} is {hours:g}; allowed: a number above 0")
