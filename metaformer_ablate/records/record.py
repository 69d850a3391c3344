"""A record: what a run left behind."""

from __future__ import annotations

import csv
import errno
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer_ablate.settings.layers import digest

if TYPE_CHECKING:
    import numpy as np


FORMAT = 1


STATUSES = ("ok", "diverged", "failed")


HISTORY_COLUMNS = ("epoch", "step", "lr", "train_loss", "val_loss", "val_top1", "val_top5", "seconds")


FRAME_COLUMNS = tuple(
    "run_id status top1 top5 loss at_chance params frozen_params macs macs_224 epochs images_seen seconds "
    "peak_memory_bytes device started data_fingerprint".split()
)


class StoreError(Exception):
    """The results folder cannot be written: full, read-only or gone. Exit code 1 in mid-sweep."""

    @classmethod
    def of(cls, place: Path, what: str, error: OSError) -> StoreError:
        why = {errno.ENOSPC: "the disk is full", errno.EROFS: "it is read-only", errno.ENOENT: "the folder is gone"}
        return cls(f"{place}: {what} cannot be written: {why.get(error.errno or 0, error)}")


@dataclass(frozen=True)
class Record:
    """What a run left behind. `data` is record.json; the other files are read when asked for."""

    folder: Path
    data: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.data["run_id"]

    @property
    def status(self) -> str:
        """ok, diverged or failed."""
        return self.data["status"]

    @property
    def top1(self) -> float | None:
        """Percent, at the last epoch, on the recipe's evaluation split; None unless the run is ok."""
        return (self.data["metrics"] or {}).get("top1") if self.status == "ok" else None

    @property
    def checksum(self) -> str:
        """Tells this record from another one of the same run."""
        return digest(self.data)

    def spec(self) -> dict[str, Any]:
        """The resolved spec, as plain values."""
        path = self.folder / "spec.yaml"
        text = path.read_text(encoding="utf-8")
        # The specs of a row differ in their seed alone, and reading YAML takes milliseconds: the rest is read once.
        seeds = re.findall(r"^seed: (\d+)$", text, re.MULTILINE)
        rest = re.sub(r"^seed: \d+\n", "", text, flags=re.MULTILINE) if len(seeds) == 1 else text
        return json.loads(_spec_json(rest)) | ({"seed": int(seeds[0])} if len(seeds) == 1 else {})

    def history(self) -> list[dict[str, float]]:
        """One mapping an epoch, with the columns of history.csv."""
        with (self.folder / "history.csv").open(newline="") as stream:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]

    def predictions(self) -> dict[str, np.ndarray]:
        """label, predicted and confidence, in the order of the evaluation split."""
        import numpy as np

        with np.load(self.folder / "predictions.npz", allow_pickle=False) as arrays:
            return dict(arrays)


@lru_cache(maxsize=4096)
def _spec_json(text: str) -> str:
    from metaformer_ablate.settings.yaml_reader import parse

    return json.dumps(parse(text, "spec.yaml"))
