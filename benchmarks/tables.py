"""A table with 10,000 records in the folder, against the same table with none, and the whole folder in one table."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RECORDS = 10_000
SEEDS = 5
ABLATE = [sys.executable, "-c", "from metaformer_ablate.cli.main import main; main()"]


def measure(rounds: int = 5) -> list[dict[str, object]]:
    """Median seconds of `ablate table table5` as a process. The records are made up: what they say takes no time."""
    with tempfile.TemporaryDirectory() as folder:
        empty, full = Path(folder) / "empty", Path(folder) / "full"
        rows = fill(full, RECORDS)
        table = [*ABLATE, "table", "table5"]
        few = [*table, "--seeds", str(SEEDS)]
        cases = {
            "no records": [*few, "--results", str(empty)],
            f"{rows * SEEDS} of {RECORDS} records": [*few, "--results", str(full)],
            f"{rows * SEEDS} of {RECORDS} records, with --images": [*few, "--images", "--results", str(full)],
            f"{rows * SEEDS} of {RECORDS} records, latex": [*few, "--format", "latex", "--results", str(full)],
            f"all {RECORDS} records in the one table": [*table, "--results", str(full)],
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for i in range(rounds + 1):
            for name, command in cases.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                if i:  # the first round fills the caches of the system
                    times[name].append(time.perf_counter() - start)
    nothing = median(times["no records"])
    return [
        {
            "benchmark": "tables",
            "case": name,
            "seconds": round(median(taken), 3),
            "ratio_to_no_records": round(median(taken) / nothing, 2),
        }
        for name, taken in times.items()
    ]


def fill(path: Path, records: int) -> int:
    """Writes made-up records of all rows of table5 under `digits`, seed after seed; returns the number of rows."""
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.store import Store
    from metaformer_ablate.spec.plan import plan

    store, chosen = Store(path), plan("table5")
    fingerprint = DataFolder.choose(None).fingerprint("digits")
    generator = np.random.default_rng(0)
    label = generator.integers(0, 10, 355).astype(np.uint8)
    specs = list(chosen.specs.values())
    for i in range(records):
        spec = specs[i % len(specs)].with_seed(i // len(specs))
        predicted = np.where(generator.random(len(label)) < 0.97, label, (label + 1) % 10).astype(np.uint8)
        top1 = 100 * float(np.mean(predicted == label))
        epochs = spec.train.epochs
        line = {"train_loss": 0.6, "val_loss": 0.6, "val_top1": top1, "val_top5": 99.9, "lr": 1e-3}
        history = [{"epoch": e, "step": 44 * e, **line, "seconds": float(e)} for e in range(1, epochs + 1)]
        data: dict[str, Any] = {
            "status": "ok",
            "reason": None,
            "metrics": {"top1": top1, "top5": 99.9, "loss": 0.6},
            "at_chance": False,
            "params": 300_000,
            "frozen_params": 0,
            "macs": 3_600_000,
            "epochs": epochs,
            "images_seen": 1408 * epochs,
            "seconds": 20.0,
            "device": "a CPU",
            "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
            "git": {"commit": "0" * 40, "dirty": False},
            "data_fingerprint": fingerprint,
        }
        confidence = generator.random(len(label)).astype(np.float32)
        store.write(spec, data, history, {"label": label, "predicted": predicted, "confidence": confidence})
    return len(specs)
