"""What a record says of the code that made it: versions, commit."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "fvcore", "metaformer-ablate")


@cache
def versions() -> dict[str, str]:
    """Versions of what computes, by package."""
    import platform

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            # torch's own string tells the builds for CPU and CUDA apart.
            found[name] = str(torch.__version__) if name == "torch" else version(name)
        except PackageNotFoundError:
            continue
    return found


@cache  # of the code that this process has loaded; what is committed later is not what trains
def git_state() -> dict[str, Any]:
    """Commit of this package's checkout and whether its files differ from it; nulls where it is no checkout."""
    home = Path(__file__).resolve().parents[2]
    nothing = {"commit": None, "dirty": None}

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(home), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != home:
            return nothing  # installed inside somebody else's repository
        # Results are written while runs go on, so they do not make a commit dirty.
        changed = git("status", "--porcelain", "--", "metaformer_ablate", "experiments", "setup.cfg")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return nothing
