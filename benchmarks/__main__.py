"""`python -m benchmarks [NAME...]`: measures, prints a table and brings benchmarks/results.json up to date."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

from benchmarks import counting, gpu, kills, lightning, loading, report, scaling, startup, sweeps, tables, training
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.system.provenance import git_state, versions

BENCHMARKS = {
    "startup": startup.measure,
    "counting": counting.measure,
    "workers": sweeps.workers,
    "scheduling": sweeps.scheduling,
    "planning": sweeps.planning,
    "tables": tables.measure,
    "report": report.measure,
    "lightning": lightning.measure,
    "kills": kills.measure,
    "training": training.training,
    "inference": training.inference,
    "scaling": scaling.measure,
    "loading": loading.measure,
    "gpu": gpu.measure,
    "cifar10": gpu.cifar10,
}
RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    import torch

    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"unknown benchmark {unknown[0]!r}; allowed: {', '.join(BENCHMARKS)}")
    machine = {"cpu": device_name(torch.device("cpu")), "cores": os.cpu_count(), "system": platform.platform()}
    if torch.cuda.is_available():
        machine["gpu"] = device_name(torch.device("cuda"))
    about = {"machine": machine, "git": git_state(), "versions": versions()}
    for name in names:
        lines = BENCHMARKS[name]()
        if not lines:  # what there was stays
            print(f"{name}: not measured: no GPU")
            continue
        for line in lines:
            print("  ".join(f"{key}={value}" for key, value in line.items()), flush=True)
        # Each benchmark says where and of what code it was measured: not all are measured each time.
        content = json.loads(RESULTS.read_text(encoding="utf-8"))
        content[name] = {**about, "results": lines}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
