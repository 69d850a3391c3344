"""Seconds and size of the report of 10,000 records, against the reading of the same records."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from metaformer_ablate.records import store as records
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.experiment import find_all
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec

RECIPES = ("digits", "fashion_mnist", "cifar10", "cifar100")
READ = "import sys; from pathlib import Path\n"
READ += "from metaformer_ablate.records.store import Store\nsum(1 for _ in Store(Path(sys.argv[1])))"
REPORT = "from metaformer_ablate.cli.main import main; main()"


def tables(number: int) -> list[RunSpec]:
    """Every experiment under four recipes, seed by seed."""
    specs: dict[str, RunSpec] = {}
    for seed in range(number):
        for experiment in find_all("experiment"):
            for recipe in RECIPES:
                for spec in _plan(experiment, recipe).specs.values():
                    specs.setdefault(spec.with_seed(seed).run_id, spec.with_seed(seed))
        if len(specs) >= number:
            break
    return list(specs.values())[:number]


def overrides(number: int) -> list[RunSpec]:
    """One experiment under many learning rates: each run has a spec of its own, and none is in a table."""
    rates = (f"train.lr={(i + 1) * 1e-6:.6f}" for i in range(number))
    return [spec for rate in rates for spec in plan("pooling_size", "digits", (rate,)).specs.values()][:number]


def seeds(number: int) -> list[RunSpec]:
    """One experiment with thousands of seeds."""
    return [spec.with_seed(i) for i in range(number) for spec in _plan("pooling_size", "digits").specs.values()][
        :number
    ]


CASES = {"44 tables": tables, "specs that differ": overrides, "seeds of one table": seeds}


def measure(number: int = 10_000) -> list[dict[str, object]]:
    """Seconds of the command, of a process that reads and checks the same records, and megabytes of the page."""
    lines: list[dict[str, object]] = []
    for name, specs_of in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            fill(Store(Path(folder)), specs_of(number))
            page = Path(folder) / "report.html"
            read = _seconds([READ, folder], folder)
            seconds = _seconds([REPORT, "report", "--results", folder, "--out", str(page)], folder)
            lines.append(
                {
                    "benchmark": "report",
                    "case": f"{number:,} records, {name}",
                    "seconds": round(seconds, 1),
                    "times_reading": round(seconds / read, 1),
                    "megabytes": round(page.stat().st_size / 1e6, 1),
                }
            )
    return lines


def fill(store: Store, specs: list[RunSpec], epochs: int = 12) -> None:
    """Writes made-up records."""
    chance = random.Random(0)
    same = {"at_chance": False, "params": 119_000, "frozen_params": 0, "macs": 18_000_000, "macs_224": None}
    same |= {"uncounted": {}, "epochs": epochs, "images_seen": 2816, "seconds": 12.5, "device": "a CPU", "reason": None}
    same |= {"peak_memory_bytes": 1, "versions": {"torch": "2.15.0"}, "git": {"commit": "0" * 40, "dirty": False}}
    same |= {"data_fingerprint": None, "started": "", "ended": "", "status": "ok"}
    predictions = {"label": np.arange(10), "predicted": np.arange(10), "confidence": np.full(10, 0.9)}
    # Nobody needs them after a power failure, and most sections of a spec are those of the one before.
    with mock.patch.object(os, "fsync"), mock.patch.object(records, "_yaml", _quick_yaml()):
        for spec in specs:
            top1 = round(95 + chance.gauss(0, 0.5), 2)
            history: list[dict[str, float]] = [
                {"epoch": e + 1, "step": 44 * e, "lr": 1e-3, "train_loss": 2 * 0.8**e + chance.random() / 20}
                | {"val_loss": 2 * 0.7**e + chance.random() / 20, "val_top1": round(top1 - 80 * 0.6**e, 4)}
                | {"val_top5": 99.0, "seconds": e + 1.0}
                for e in range(epochs)
            ]
            history[-1]["val_top1"] = top1
            data = {**same, "metrics": {"top1": top1, "top5": 99.0, "loss": 0.25}}
            store.write(spec, data, history, predictions)


def _quick_yaml() -> Any:
    """What the store writes as spec.yaml, a section that was met before from memory."""
    write = records._yaml
    section = cache(lambda text: write(json.loads(text)))
    return lambda tree: "".join(section(json.dumps({key: value})) for key, value in sorted(tree.items()))


def _seconds(words: list[str], folder: str) -> float:
    environment = {**os.environ, "XDG_CACHE_HOME": f"{folder}/cache"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", *words], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


_plan = cache(plan)
