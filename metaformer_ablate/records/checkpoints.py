"""Checkpoints of a run, written whole and checked when read: `last.ckpt`, and `previous.ckpt` for when that is damaged.

A checkpoint is a torch file with a SHA-256 of itself behind its end: torch reads it as it is, but by itself takes a
flipped bit for a weight.
"""

from __future__ import annotations

import errno
import hashlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

LAST, PREVIOUS, FINAL, DAMAGED = "last.ckpt", "previous.ckpt", "final.ckpt", "damaged.ckpt"


_MARK = b"metaformer_ablate sha256:"


@dataclass
class Checkpoints:
    """The checkpoints in a run's folder."""

    folder: Path

    def save(self, write: Callable[[Path], None], name: str = LAST) -> None:
        """Has `write` fill a temporary file, seals it and puts it in place; the last one becomes the previous one.

        Under the name FINAL it is the trained model, to be kept and not to be gone on from.

        Raises OSError where the folder cannot be written; what was there stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{LAST}.{uuid4().hex[:8]}"
        try:
            write(temporary)
            with temporary.open("r+b") as stream:
                seal = hashlib.file_digest(stream, "sha256").digest()
                stream.seek(0, os.SEEK_END)
                stream.write(_MARK + seal)
                stream.flush()
                os.fsync(stream.fileno())
            if name == LAST and (self.folder / LAST).exists():
                (self.folder / LAST).replace(self.folder / PREVIOUS)
            temporary.replace(self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)

    @property
    def final(self) -> Path:
        return self.folder / FINAL

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole; None where there is none. A damaged one is renamed out of the way."""
        for name in (LAST, PREVIOUS):
            path = self.folder / name
            if not path.exists():
                continue
            if is_whole(path):
                return path
            aside = self.folder / f"{DAMAGED}.{uuid4().hex[:8]}"
            path.rename(aside)
            warnings.warn(f"{path} is damaged and was set aside as {aside.name}", stacklevel=2)
        return None

    def set_aside(self, path: Path) -> Path:
        """Moves a checkpoint to `<results>/aside/`, for what stays in the folder goes with the run; where it went.

        Raises OSError where the folder cannot be written.
        """
        aside = self.folder.parent.parent / "aside"
        aside.mkdir(exist_ok=True)
        return path.rename(aside / f"{self.folder.name}-{path.stem}-{uuid4().hex[:8]}.ckpt")


def evaluated_weights(state: Mapping[str, Any], averaged: bool) -> dict[str, Any]:
    """Of a checkpoint's `state_dict`, that of the net that was evaluated: with `train.ema` the averaged one."""
    prefix = "averaged.module." if averaged else "net."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def is_checkpoint(name: str) -> bool:
    """Whether a file of this name in a run's folder is one of its checkpoints."""
    return name.startswith((LAST, PREVIOUS, FINAL, DAMAGED))


def is_whole(path: Path) -> bool:
    """Whether a checkpoint ends with the SHA-256 of what is before it."""
    tail = len(_MARK) + 32
    try:
        with path.open("rb") as stream:
            left = stream.seek(0, os.SEEK_END) - tail
            if left < 0:
                return False
            stream.seek(0)
            seal = hashlib.sha256()
            while left and (part := stream.read(min(left, 1 << 20))):
                seal.update(part)
                left -= len(part)
            return stream.read() == _MARK + seal.digest()
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOENT):
            return False
        raise
