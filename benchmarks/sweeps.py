"""What a sweep costs beyond its training: workers against threads and against separate processes, scheduling, planning.

The first two sides are measured in turns in one run, so their ratios hold whatever else the machine does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from unittest import mock

from benchmarks.startup import ablate
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan

EXPERIMENT, ROWS = "pooling_size", ("pool3", "pool5", "pool7", "pool9")
SMALL = ("train.epochs=4", "--seeds", "2")  # eight runs of the digits' own model, some seconds each
TINY = ("train.epochs=1", "model.depths=[1,1,1,1]", "model.dims=[8,8,16,16]", "data.image_size=8")


def _seconds(commands: Sequence[Sequence[str]], folder: Path) -> float:
    start = time.perf_counter()
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def _one_row(folder: Path, row: str) -> str:
    """A file with one row of the experiment, so that a process of its own can train it."""
    sets = plan(EXPERIMENT).experiment.rows[row].layer.values
    path = folder / f"{row}.yaml"
    lines = "".join(f"      {key}: {value}\n" for key, value in sets.items())
    path.write_text(f"baseline: {row}\nrows:\n  {row}:\n    set:\n{lines or '      {}'}\n")
    return str(path)


def workers(rounds: int = 2) -> list[dict[str, object]]:
    """Two workers of one thread, one worker of two threads, and one process a run after another."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        files = [_one_row(home, row) for row in ROWS]
        for i in range(rounds):
            sides = {
                "two workers, one thread": [ablate("run", EXPERIMENT, *SMALL, "--workers", "2")],
                "one worker, two threads": [ablate("run", EXPERIMENT, *SMALL, "train.threads=2", "--workers", "1")],
                "a process a run": [
                    ablate("run", file, "train.epochs=4", "--seeds", f"{seed},", "--workers", "0")
                    for seed in range(2)
                    for file in files
                ],
            }
            for name, commands in sides.items():
                results = ["--results", str(home / f"{name} {i}")]
                times.setdefault(name, []).append(_seconds([[*c, *results] for c in commands], home))
    first = times["two workers, one thread"]
    return [
        {
            "benchmark": "workers",
            "case": name,
            "seconds": round(median(t), 1),
            "two_workers_are_faster_by": round(median(a / b for a, b in zip(t, first, strict=True)), 2),
        }
        for name, t in times.items()
    ]


def scheduling(few: int = 2, many: int = 12) -> list[dict[str, object]]:
    """Seconds a run beyond what its record says, from a short and a long sweep with one worker."""
    spent = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for seeds in (few, few, many):  # the first one fills the caches
            results = home / f"{len(spent)}-{seeds}"
            wall = _seconds(
                [ablate("run", EXPERIMENT, *TINY, "--seeds", str(seeds), "--workers", "1", "--results", str(results))],
                home,
            )
            spent[seeds] = wall - sum(record.data["seconds"] for record in Store(results))
    runs = (many - few) * len(ROWS)
    a_run = (spent[many] - spent[few]) / runs
    return [{"benchmark": "scheduling", "case": f"{runs} more runs", "seconds_a_run": round(a_run, 4)}]


PLANNED, RECORDED = 10_000, 9_000
PLAN = """
import sys, time
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.records.store import Store
from metaformer_ablate.sweep.jobs import plan_jobs
from pathlib import Path
start = time.perf_counter()
store = Store(Path(sys.argv[1]))
jobs, states = plan_jobs([plan("pooling_size")], range(int(sys.argv[2])), store, DataFolder.choose(None))
seconds = time.perf_counter() - start
# ru_maxrss would be that of the process that started this one, where it was larger.
largest = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(seconds, len(jobs), len(states), largest / 1024)
"""


def planning() -> list[dict[str, object]]:
    """A plan of 10,000 runs without records, and with 9,000: seconds, and MiB of the process at its largest."""
    chosen = plan(EXPERIMENT)
    seeds = PLANNED // len(chosen.specs)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for records in (0, RECORDED):
            if records:
                _fill(store, [chosen.spec(row, seed) for seed in range(seeds) for row in chosen.specs][:records])
            out = subprocess.run(
                [sys.executable, "-c", PLAN, folder, str(seeds)], check=True, capture_output=True, text=True
            ).stdout.split()
            lines.append(
                {
                    "benchmark": "planning",
                    "case": f"{int(out[2])} runs, {records} with a record",
                    "seconds": round(float(out[0]), 2),
                    "to_train": int(out[1]),
                    "mib": round(float(out[3])),
                }
            )
    return lines


def _fill(store: Store, specs: Sequence) -> None:
    """Records that nobody trained, of the shape of real ones: 355 predictions, 12 epochs."""
    import numpy as np

    generator = np.random.default_rng(0)
    label = generator.integers(0, 10, 355).astype(np.uint8)
    predictions = {"label": label, "predicted": label, "confidence": generator.random(355).astype(np.float32)}
    columns = ("epoch", "step", "lr", "train_loss", "val_loss", "val_top1", "val_top5", "seconds")
    history = [dict.fromkeys(columns, 0.5) for _ in range(12)]
    data = {
        "status": "ok",
        "reason": None,
        "device": None,
        "versions": {},
        "git": {},
        "metrics": {"top1": 90.0, "top5": 99.0, "loss": 0.3},
        **dict.fromkeys(("params", "frozen_params", "macs", "seconds", "images_seen"), 1),
        "data_fingerprint": DataFolder.choose(None).fingerprint("digits"),
    }
    with mock.patch("os.fsync"):  # what nobody needs after a power cut is not worth the minutes
        for spec in specs:
            store.write(spec, data, history, predictions)
