"""Files that others wrote: regular ones of bounded size, and nothing else."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

LARGEST_FILE = 2**18  # bytes of a file of settings


def open_regular(path: str | Path) -> BufferedReader:
    """Opens a file to be read. Raises OSError, also for what is no regular file: a FIFO or a device may never end."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # NUL or half a surrogate pair
        raise OSError(0, "no file can have this name") from None
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        raise OSError(0, "it is a folder" if stat.S_ISDIR(mode) else "not a regular file")
    return os.fdopen(file, "rb")


def read_regular(path: str | Path, largest: int = LARGEST_FILE) -> bytes:
    """The content of a regular file. Raises OSError where it cannot be read or is larger than so many bytes."""
    with open_regular(path) as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise OSError(0, f"it is larger than {largest} bytes")
    return content
