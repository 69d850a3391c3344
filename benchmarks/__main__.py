"""`python -m benchmarks [NAME...]`: measures, prints a table and brings benchmarks/results.json up to date.

`gpu` may be given `--minutes M`, after which it begins nothing, and `--part NAME`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import (
    counting,
    gpu,
    kills,
    lightning,
    loading,
    overfit,
    report,
    scaling,
    startup,
    sweeps,
    tables,
    training,
)
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.system.provenance import git_state, versions

BENCHMARKS: dict[str, Callable[..., Iterable[dict[str, object]]]] = {
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
    "camvid": overfit.camvid,
    "coco": overfit.coco,
}
RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    import torch

    given = _arguments()
    names = given.names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"unknown benchmark {unknown[0]!r}; allowed: {', '.join(BENCHMARKS)}")
    machine = {"cpu": device_name(torch.device("cpu")), "cores": os.cpu_count(), "system": platform.platform()}
    if torch.cuda.is_available():
        machine["gpu"] = device_name(torch.device("cuda"))
    about = {"machine": machine, "git": git_state(), "versions": versions()}
    for name in names:
        of_gpu = {"minutes": given.minutes, "part": given.part} if name == "gpu" else {}
        lines: list[dict[str, object]] = []
        for line in BENCHMARKS[name](**of_gpu):
            print("  ".join(f"{key}={value}" for key, value in line.items()), flush=True)
            lines.append(line)
            if of_gpu:  # the machine may be gone before the last line
                _write(name, {**about, "results": lines})
        if not lines:  # what there was stays
            print(f"{name}: not measured: {'no data' if name in ('camvid', 'coco') else 'no GPU'}")
            continue
        _write(name, {**about, "results": lines})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--minutes", type=float, help="of `gpu`: begin nothing after so many minutes")
    parser.add_argument("--part", choices=gpu.PARTS, help="of `gpu`: this part alone")
    return parser.parse_args()


def _write(name: str, found: dict[str, object]) -> None:
    """Each benchmark says where and of what code it was measured: not all are measured each time."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    content[name] = found
    temporary = RESULTS.with_suffix(".new")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(RESULTS)


if __name__ == "__main__":
    main()
