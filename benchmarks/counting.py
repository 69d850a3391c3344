"""Counting a model the first time, against looking the count up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from statistics import median

SHOW = [
    sys.executable,
    "-c",
    "from metaformer_ablate.cli.main import main; main()",
    "show",
    "pooling_size",
    "--recipe",
    "imagenet",
]


def measure(rounds: int = 3) -> list[dict[str, object]]:
    """Seconds of `ablate show pooling_size --recipe imagenet` with an empty cache and with a full one, in turn."""
    cold, warm = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for times in (cold, warm):
                start = time.perf_counter()
                environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache"}
                subprocess.run(SHOW, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
                times.append(time.perf_counter() - start)
    ratio = median(a / b for a, b in zip(cold, warm, strict=True))
    return [
        {"benchmark": "counting", "case": "show, counted", "seconds": round(median(cold), 3)},
        {
            "benchmark": "counting",
            "case": "show, looked up",
            "seconds": round(median(warm), 3),
            "times_faster": round(ratio, 1),
        },
    ]
