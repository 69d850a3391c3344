"""submitit's executor, which writes the job scripts."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError


def submitit_parameters() -> set[str]:
    """The names that `SlurmExecutor.update_parameters` takes. submitit tells them by a private method alone."""
    from submitit import SlurmExecutor

    return SlurmExecutor._valid_parameters()


def make_executor(folder: Path, options: dict[str, Any], most_jobs: int) -> Any:
    """submitit's executor with the options of `read_options`; RequestError where submitit refuses them."""
    from submitit import SlurmExecutor

    own = submitit_parameters()
    # submitit's defaults are a limit of five minutes, a key that not every cluster has, and 256 at once.
    parameters: dict[str, Any] = {"time": None, "wckey": None, "job_name": "ablate", "array_parallelism": most_jobs}
    parameters |= {key: value for key, value in options.items() if key in own}
    if "setup" in options:
        parameters["setup"] = [options["setup"]]
    if "teardown" in options:
        parameters["teardown"] = [options["teardown"]]
    if "srun_args" in options:
        parameters["srun_args"] = shlex.split(options["srun_args"])
    more = {key.replace("_", "-"): v for key, v in options.items() if key not in own and v is not False}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # -P: what lies in the current folder is not run in place of a library.
        executor = SlurmExecutor(folder=folder, python=f"{shlex.quote(sys.executable)} -P")
        executor.update_parameters(**parameters, additional_parameters=more)
    except (OSError, TypeError, ValueError) as error:
        raise RequestError(f"--slurm: submitit refuses the options: {error}") from None
    return executor
