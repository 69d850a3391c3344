"""What a run ended with: the content of record.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metaformer_ablate.cost.cost import count, macs_at_224
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system import provenance
from metaformer_ablate.system.clock import now
from metaformer_ablate.training.compute import is_compile_error

# The keys of record.json, in their order; a run that ends early lacks values, not keys.
EMPTY_RECORD: dict[str, Any] = dict.fromkeys(
    (
        *("status", "reason", "metrics", "at_chance", "params", "frozen_params", "macs", "macs_224", "uncounted"),
        "classes",
        *("epochs", "images_seen", "seconds", "device", "precision", "compiled", "kernels", "cpu"),
        "peak_memory_bytes",
        *("versions", "git", "data_fingerprint", "started", "ended"),
    )
)


def failed_record(spec: RunSpec, reason: str) -> dict[str, Any]:
    """What there is to record of a run whose worker died, as another process sees it."""
    steps_per_epoch = spec.data.split_sizes()[0] // spec.train.batch_size
    seen = {"epochs": spec.train.all_epochs(steps_per_epoch), "images_seen": 0, "seconds": 0.0}
    of_process = {"versions": provenance.versions(), "git": provenance.git_state(), "started": now(), "ended": now()}
    return EMPTY_RECORD | seen | of_process | {"status": "failed", "reason": reason}


def cost_of(spec: RunSpec) -> dict[str, Any]:
    """Parameters and multiply-adds, as a record holds them."""
    cost = count(spec)
    return {
        "params": cost.params,
        "frozen_params": cost.frozen_params,
        "macs": cost.macs,
        "macs_224": macs_at_224(spec),
        "uncounted": cost.uncounted,
    }


LONGEST_REASON = 2000  # letters; a record has to stay readable


def failure_reason(error: Exception, spec: RunSpec) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "not enough memory" in text:
        return f"out of memory with a batch of {spec.train.batch_size}; try a smaller model.size or data.image_size"
    if is_compile_error(error):
        return f"torch.compile failed ({type(error).__name__}: {text[:300]}); try train.compile=false"
    return f"{type(error).__name__}: {text[:LONGEST_REASON]}"


@dataclass(frozen=True)
class RunOutcome:
    """What training left behind: the content of a record."""

    record: dict[str, Any]
    history: list[dict[str, float]]
    predictions: dict[str, np.ndarray] | None
    log: str | None
    checkpoint: Path | None  # to be kept

    def write(self, store: Store, spec: RunSpec) -> Record:
        return store.write(spec, self.record, self.history, self.predictions, self.log, self.checkpoint)
