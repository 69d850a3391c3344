"""Slurm's own commands: what is in the queue, how a job ended, and cancelling."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence

from metaformer_ablate.errors import RequestError

COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")


def queue() -> dict[str, str] | None:
    """The state of each job of this user that is in the queue, by id; None where Slurm does not answer."""
    words = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i %T"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        return None
    return dict(line.split()[:2] for line in done.stdout.splitlines() if line.strip())  # type: ignore[misc]


def last_state(job_id: str) -> str:
    """The state in which a job has left the queue, as far as Slurm remembers."""
    words = ["scontrol", "--oneliner", "show", "job", job_id]
    done = subprocess.run(words, capture_output=True, text=True)
    found = re.search(r"\bJobState=(\w+)", done.stdout)
    return found[1] if found else "UNKNOWN"


def cancel(job_ids: Sequence[str]) -> None:
    """Slurm sends SIGTERM to what runs, and SIGKILL some time after; what waits leaves the queue."""
    for begin in range(0, len(job_ids), 500):
        subprocess.run(["scancel", *job_ids[begin : begin + 500]], capture_output=True)


def sbatch_options() -> set[str]:
    """The long options of sbatch, with _ for -. Raises RequestError where sbatch does not run."""
    done = subprocess.run(["sbatch", "--help"], capture_output=True, text=True)
    found = {name.replace("-", "_") for name in re.findall(r"--([a-z][a-z-]+)", done.stdout)}
    if not found:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RequestError(f"--launcher slurm: sbatch does not work here: {reason}")
    return found
