"""What a record says of the code that made it: versions, commit."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from metaformer_ablate.errors import RequestError, shown

PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "torchmetrics", "numpy", "fvcore", "timm", "Pillow"),
    *("faster-coco-eval", "metaformer-ablate"),
)


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


def _given_commit() -> dict[str, Any]:
    given = os.environ.get("ABLATE_COMMIT", "").strip()
    if not given:
        return {"commit": None, "dirty": None}
    if not re.fullmatch("[0-9a-f]{7,64}", given):
        raise RequestError(f"ABLATE_COMMIT is {shown(given)}; allowed: the 7 to 64 hex digits of a commit")
    return {"commit": given, "dirty": None, "given": True}


@cache  # of the code that this process has loaded; what is committed later is not what trains
def git_state() -> dict[str, Any]:
    """Commit of this package's checkout and whether its files differ from it.

    Where it is no checkout, as in a container or a copy on a cluster, the commit is the one that $ABLATE_COMMIT gives,
    with `given: true`, for nobody has seen it; without that there are nulls. Raises RequestError for a value of
    $ABLATE_COMMIT that is no commit.
    """
    home = Path(__file__).resolve().parents[2]
    nothing = _given_commit()

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
