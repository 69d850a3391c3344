"""Sweeps through a launcher, beside files that must not be run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# As the command that pip installs: a file in another folder than the one the user is in.
SCRIPT = "from metaformer_ablate.cli.main import main\nif __name__ == '__main__':\n    main()\n"


def sweep_in(folder: Path, *words: object, at_start: str = "") -> subprocess.CompletedProcess[str]:
    """`ablate run pooling_size WORDS` as a person calls it in a folder."""
    for name, text in (("bin/ablate", SCRIPT), ("path/sitecustomize.py", at_start)):
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    arguments = [sys.executable, str(folder / "bin" / "ablate"), "run", "pooling_size", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(folder / "path")}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def plant_modules(folder: Path) -> None:
    """Files named like modules that processes need; one that is executed leaves its name in executed.txt."""
    for name in ("pickle", "signal", "socket", "random", "torch", "yaml", "pydantic"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'executed.txt')!r}, 'a').write(__file__)")
