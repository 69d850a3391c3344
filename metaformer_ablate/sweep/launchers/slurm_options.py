"""Options of Slurm jobs: `--slurm key=value`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metaformer_ablate.errors import RequestError, nearest
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.sweep.launchers.slurm_commands import sbatch_options
from metaformer_ablate.sweep.launchers.submitit_executor import submitit_parameters

GPU_KEYS = ("gres", "gpus", "gpus_per_node", "gpus_per_task")


# What a job is: one run, one task, its output where the sweep looks for it.
_FIXED = {"nodes", "ntasks", "ntasks_per_node", "array", "output", "error", "input", "open_mode", "signal", "wrap"}

_FIXED |= {"clusters", "hold", "wait", "parsable", "quiet", "help", "usage", "version", "test_only", "use_min_nodes"}


def read_options(words: Sequence[str]) -> dict[str, Any]:
    """The options of `--slurm key=value`: those of sbatch by their long names, and submitit's (array_parallelism,
    setup, signal_delay_s, ...). Raises RequestError for any other."""
    of_submitit = submitit_parameters() - {"additional_parameters", "num_gpus"}
    of_sbatch = sbatch_options()
    known = sorted((of_submitit | of_sbatch) - _FIXED)
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not equals or not key:
            raise RequestError(f"--slurm {word!r}: allowed: key=value, for example partition=gpu")
        if key in _FIXED:
            raise RequestError(f"--slurm {key}: the launcher sets it: a job is one task that trains one run")
        if key not in known:
            own = ", ".join(sorted(of_submitit - of_sbatch - _FIXED))
            allowed = f"the long options of sbatch (`sbatch --help`), and {own}"
            raise RequestError(f"--slurm: unknown option {key!r}{nearest(key, known)}; allowed: {allowed}")
        if key in options:
            raise RequestError(f"--slurm {key} is given twice")
        value = parse(text, f"--slurm {key}")
        if value is None or isinstance(value, (dict, list)):
            raise RequestError(f"--slurm {key} is {text!r}; allowed: one value")
        if key in ("array_parallelism", "signal_delay_s") and (type(value) is not int or value < 1):
            raise RequestError(f"--slurm {key} is {text!r}; allowed: an integer of at least 1")
        options[key] = value if isinstance(value, (bool, int)) else text
    return options
