"""The cache folder, and files whose loss costs only time."""

from __future__ import annotations

import os
from pathlib import Path

from metaformer_ablate.errors import RequestError


def cache_dir() -> Path:
    """The user's cache of this package: downloads, counts and checksums; anything in it can be made again.

    Raises RequestError where the user has no home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metaformer_ablate"
    except RuntimeError:  # neither in $HOME nor in the list of users
        raise RequestError(
            "this user has no home directory, which the cache is in; set HOME or XDG_CACHE_HOME"
        ) from None


def write_cache(path: Path, text: str) -> None:
    """Writes a cache file whole; a cache that cannot be written is no reason to stop."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        pass
