"""What a fresh process has loaded after a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "torchvision", "pytorch_lightning", "lightning", "torchmetrics", "timm", "fvcore", "sklearn", "wandb")


MAIN = """
import json, sys
from metaformer_ablate.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
"""


REPORT = """
print()
print(json.dumps([name for name in {heavy!r} if name in sys.modules]))
"""


def loaded(program: str, *arguments: object, cwd: Path) -> list[str]:
    """The heavy packages that a fresh process has loaded after a program."""
    done = subprocess.run(
        [sys.executable, "-c", program + REPORT.format(heavy=HEAVY), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
