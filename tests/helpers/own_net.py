"""A net of a user's own with a neighbour, and an experiment of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from conftest import command
from sweeps import contents

NET = '''
"""A net with a neighbour."""
import torch
from torch import nn

from blocks import Gated


class MyNet(nn.Module):
    def __init__(
        self, width: int = 8, depth: int = 1, use_gate: bool = True, *, num_classes: int = 10, in_chans: int = 3
    ):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, width, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*[Gated(width, use_gate) for _ in range(depth)])
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.head(self.drop(torch.relu(self.norm(x)).mean((2, 3))))


class Wider(MyNet):
    """Takes what MyNet takes."""


class Open(MyNet):
    def __init__(self, slope: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope
'''

BLOCKS = """
import torch
from torch import nn

import scales


class Gated(nn.Module):
    def __init__(self, dim, use_gate):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.gate = nn.Conv2d(dim, dim, 1) if use_gate else None

    def forward(self, x):
        from scales import SHARE

        y = SHARE * scales.ONE * self.conv(x)
        return x + (y if self.gate is None else y * torch.sigmoid(self.gate(x)))
"""

SCALES = "SHARE, ONE = 0.5, 1.0\n"

EXPERIMENT = """
title: Does the gate matter?
baseline: gated
set:
  model.class: my_net.py:MyNet
  model.args: {width: 8, use_gate: true}
rows:
  gated: {label: Gate}
  plain: {label: "Gate -> none", set: {model.args.use_gate: false}}
"""

# A run of half a second, for a model that has no settings of ours.
WORDS = (
    "train.epochs=1",
    "train.warmup_epochs=0",
    "train.batch_size=64",
    "train.lr=2e-2",
    "data.image_size=8",
)


def write_net(folder: Path) -> None:
    """The net, its neighbours and the experiment `gate` in a folder."""
    (folder / "my_net.py").write_text(NET)
    (folder / "blocks.py").write_text(BLOCKS)
    (folder / "scales.py").write_text(SCALES)
    (folder / "experiments").mkdir(exist_ok=True)
    (folder / "experiments" / "gate.yaml").write_text(EXPERIMENT)


def edit(path: Path, before: str, after: str) -> None:
    """Writes something else for what stands in a file, once or more often."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def check_that_it_is_trained_by(launcher: str, folder: Path) -> None:
    """`ablate run gate --launcher LAUNCHER` finds the class, says so once, and gives the records of a run here."""
    write_net(folder)
    env = {key: value for key, value in os.environ.items() if key != "ABLATE_WORKERS"}
    found = []
    for words in (("--launcher", launcher), ("--workers", "0")):
        results = folder / words[1]
        words = ("run", "gate", *WORDS, "--results", str(results), *words)
        done = subprocess.run(command(*words), cwd=folder, env=env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("running code of ") == 1, done.stderr
        found.append(contents(results))
    assert len(found[0]) == 2 and found[0] == found[1]
