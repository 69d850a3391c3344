"""Resolved specs and made-up records, as several tests write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.layers import Layer, digest
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import override_layer

if TYPE_CHECKING:
    from torch import nn


def spec_of(
    settings: Mapping[str, Any] | None = None, *, recipe: str = "digits", words: Iterable[str] = (), seed: int = 0
) -> RunSpec:
    """The spec of a recipe with override words, then settings by dotted path over it that nothing has to read."""
    over = [override_layer(words), Layer(dict(settings or {}), lambda path: "test")]
    return resolve([load_recipe(recipe).layer, *over], seed)


def build_net(spec: RunSpec, kernels: str = "torch") -> nn.Module:
    """The net of a spec, its weights as a run of it begins with them."""
    import torch

    from metaformer_ablate.tasks.classification import net

    return net.build_net(spec, kernels, device=torch.device("cpu"))


def fake_record(
    store: Store,
    spec: RunSpec,
    top1: float = 97.5,
    status: str = "ok",
    *,
    fingerprint: str | None = None,
    predictions: Mapping[str, np.ndarray] | None = None,
    history: list[dict[str, float]] | None = None,
    **of: Any,
) -> Record:
    """Writes a record that nobody trained, over any other of the run. Keyword arguments go into record.json."""
    before = store.read(spec.run_id)
    if before is not None and before.status != "failed":
        store.set_aside(spec.run_id)  # as a run does that is to be trained again
    ok = status == "ok"
    data = {
        "status": status,
        "reason": None if ok else f"it {status}",
        "metrics": {"top1": top1, "top5": 100.0, "loss": 0.25} if ok else None,
        "at_chance": False if ok else None,
        "params": 119_000,
        "frozen_params": 0,
        "macs": 18_000_000,
        "macs_224": 1_800_000_000,
        "uncounted": {"aten::add": 10},
        "epochs": 2,
        "images_seen": 2816,
        "seconds": 12.5,
        "device": "a CPU",
        "peak_memory_bytes": 123_456_789,
        "versions": {"torch": "2.15.0"},
        "git": {"commit": None, "dirty": None},
        "data_fingerprint": fingerprint,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:00:12+00:00",
        **of,
    }
    line = {"epoch": 1, "step": 44, "lr": 1e-3, "train_loss": 2.1, "val_loss": 1.9, "val_top1": 40.0, "val_top5": 90.0}
    history = history or [{**line, "seconds": 6.0}, {**line, "epoch": 2, "step": 88, "val_top1": top1, "seconds": 12.5}]
    predictions = predictions or {
        "label": np.arange(10, dtype=np.uint8),
        "predicted": np.arange(10, dtype=np.uint8),
        "confidence": np.full(10, 0.9, dtype=np.float32),
    }
    log = "Traceback: made up" if status == "failed" else None
    return store.write(spec, data, history, dict(predictions) if ok else None, log)


def seal(folder: Path, **changes: Any) -> None:
    """Changes record.json (`...` takes a key out) and makes its checksums fit: a record that another program wrote."""
    path = folder / "record.json"
    data = {**json.loads(path.read_text()), **changes}
    data = {key: value for key, value in data.items() if value is not ... and key != "checksums"}
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file != path]
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    path.write_text(json.dumps({**data, "checksums": {**sums, "record.json": digest(data)}}))
