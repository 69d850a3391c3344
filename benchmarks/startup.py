"""How soon commands answer that need no torch, against the import of torch on the same machine at the same time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from statistics import median

ABLATE = "from metaformer_ablate.cli.main import main; main()"


def ablate(*words: str) -> list[str]:
    """The words that start `ablate WORDS` in a new process of this Python."""
    return [sys.executable, "-c", ABLATE, *words]


COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "ablate --help": ablate("--help"),
    "ablate list": ablate("list"),
    "ablate table pooling_size": ablate("table", "pooling_size"),
}


def measure(rounds: int = 7) -> list[dict[str, object]]:
    """Median seconds of each command, the commands in turn, and the ratio to the import of torch."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds + 1):
            for name, command in COMMANDS.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                if i:  # the first round fills the caches of the system
                    times[name].append(time.perf_counter() - start)
    torch = median(times["import torch"])
    return [
        {
            "benchmark": "startup",
            "case": name,
            "seconds": round(median(t), 3),
            "ratio_to_torch": round(median(t) / torch, 3),
        }
        for name, t in times.items()
    ]
