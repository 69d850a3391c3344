"""`python -m benchmarks [NAME...]`: measures, prints a table and writes benchmarks/results.json."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

from benchmarks import counting, report, startup
from metaformer_ablate.cost import device_name
from metaformer_ablate.run import git_state, versions

BENCHMARKS = {"startup": startup.measure, "counting": counting.measure, "report": report.measure}


def main() -> None:
    import torch

    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"unknown benchmark {unknown[0]!r}; allowed: {', '.join(BENCHMARKS)}")
    lines = [line for name in names for line in BENCHMARKS[name]()]
    for line in lines:
        print("  ".join(f"{key}={value}" for key, value in line.items()))
    machine = {"cpu": device_name(torch.device("cpu")), "cores": os.cpu_count(), "system": platform.platform()}
    content = {"machine": machine, "git": git_state(), "versions": versions(), "results": lines}
    path = Path(__file__).parent / "results.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
