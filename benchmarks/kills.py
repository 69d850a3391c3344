"""A hundred SIGKILLs at random moments of a small sweep: what is lost, and what comes out otherwise."""

from __future__ import annotations

import random
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.startup import ablate
from metaformer_ablate.records.claims import Claims
from metaformer_ablate.records.compare import compare
from metaformer_ablate.records.store import Store

# 4 rows x 10 seeds of about three seconds each; everything that draws at random or remembers is on.
WORDS = (
    *("run", "pooling_size", "--seeds", "10", "train.epochs=24", "train.warmup_epochs=1.5"),
    *("train.batch_size=64", "train.lr=2e-2", "model.depths=[1,1,1,1]", "model.dims=[8,8,16,16]", "data.image_size=8"),
    *("data.mixup=0.4", "data.cutmix=0.4", "data.crop_padding=1", "model.drop_path=0.3", "model.norm=batch_norm"),
)
PROCESSES = 2  # two sweeps over one folder at once: each is killed while the other may hold what it left


def wait_for_a_claim(process: subprocess.Popen, results: Path) -> None:
    """Until a sweep that was just begun holds a run, which some seconds of imports come before, or has ended."""
    claims = Claims(results)
    while process.poll() is None:
        if any(holder.pid == process.pid for holder in claims.held().values()):
            return
        time.sleep(0.02)


def measure(kills: int = 100, seed: int = 0) -> list[dict[str, object]]:
    """Kills two sweeps over one folder `kills` times in all, lets them end, and compares with an undisturbed sweep."""
    with tempfile.TemporaryDirectory() as folder:
        disturbed, calm = Path(folder) / "disturbed", Path(folder) / "calm"
        left, lock, done = [kills], threading.Lock(), [0]

        def kill_again_and_again(number: int) -> None:
            generator = random.Random(seed * 100 + number)
            while True:
                with lock:
                    if not left[0]:
                        return
                    left[0] -= 1
                process = subprocess.Popen(
                    ablate(*WORDS, "--results", str(disturbed), "--workers", "0", "--checkpoint-seconds", "0"),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                wait_for_a_claim(process, disturbed)
                time.sleep(generator.uniform(0, 1.2))
                process.kill()
                killed = process.wait() == -9
                with lock:
                    done[0] += killed

        threads = [threading.Thread(target=kill_again_and_again, args=[i]) for i in range(PROCESSES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        interrupted = len(list(Store(disturbed)))
        for results in (disturbed, calm):
            words = [*WORDS, "--results", str(results), "--workers", "2"]
            subprocess.run(ablate(*words), check=True, capture_output=True)
        stores = Store(disturbed), Store(calm)
        records = [{record.run_id: record for record in store} for store in stores]
        identical = sum(compare(records[0][i], records[1][i])["identical"] for i in records[1] if i in records[0])
        return [
            {
                "benchmark": "kills",
                "case": f"{PROCESSES} sweeps over one folder, a checkpoint after every step",
                "kills": done[0],
                "records_before_the_last_start": interrupted,
                "runs": len(records[1]),
                "lost": len(records[1].keys() - records[0].keys()),
                "identical": identical,
                "damaged": len(stores[0].problems),
                "left_over": len([p for p in stores[0].runs.iterdir() if p.name not in records[0]]),
            }
        ]
