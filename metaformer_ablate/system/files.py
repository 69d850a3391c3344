"""Files that others wrote: regular ones of bounded size, and nothing else."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

LARGEST_FILE = 2**18  # bytes of a file of settings


_PART = 2**24  # bytes per call where one call does not read all


def open_regular(path: str | Path) -> BufferedReader:
    """Opens a file to be read. Raises OSError, also for what is no regular file: a FIFO or a device may never end."""
    return os.fdopen(_open(path)[0], "rb")


def _open(path: str | Path) -> tuple[int, int]:
    """The descriptor of a regular file, and its size in bytes."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # NUL or half a surrogate pair
        raise OSError(0, "no file can have this name") from None
    facts = os.fstat(file)
    if not stat.S_ISREG(facts.st_mode):
        os.close(file)
        raise OSError(0, "it is a folder" if stat.S_ISDIR(facts.st_mode) else "not a regular file")
    return file, facts.st_size


def read_regular(path: str | Path, largest: int = LARGEST_FILE) -> bytes:
    """The content of a regular file. Raises OSError where it cannot be read or is larger than so many bytes."""
    file, size = _open(path)
    try:
        content = os.read(file, min(size, largest) + 1)  # tens of thousands of small files are read: one call for each
        if len(content) != size:  # a large file, or one whose size changes or is not known
            parts = [content]
            while (left := largest + 1 - sum(map(len, parts))) and (part := os.read(file, min(left, _PART))):
                parts.append(part)
            content = b"".join(parts)
    finally:
        os.close(file)
    if len(content) > largest:
        raise OSError(0, f"it is larger than {largest} bytes")
    return content
