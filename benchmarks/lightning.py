"""What Lightning, our callback and our logging cost a step, against a bare loop over the same steps.

Both sides take the same steps of a small model, in turns in one run, and end with the same weights. A batch of two
images of 8 x 8 leaves so little to compute that the cost shows.
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.sampling import derive_seed
from metaformer_ablate.models.build import build_model
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import override_layer
from metaformer_ablate.system.devices import choose_device, device_name
from metaformer_ablate.system.signals import StopRequest
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.data.in_memory import InMemoryData, train_loader
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.training.optim import learning_rate, seed_generators, weight_decay_groups

WORDS = ("data.image_size=8", "train.batch_size=2", "train.epochs=1")


class _Clock(StopRequest):
    """Asked after each step whether to end, it notes when."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.device, self.times = device, list[float]()

    def __call__(self) -> bool:
        self.times.append(_now(self.device))
        return False


class _Runner(Runner):
    """Keeps the task of the last run, for its weights."""

    task: TaskModule

    def fit(self, *of_run: Any) -> TaskModule:
        self.task = super().fit(*of_run)
        return self.task


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(rounds: int = 7) -> list[dict[str, object]]:
    """Median ms a step of each side and of their difference, over the rounds; within a round, over its steps."""
    device = choose_device("auto")
    spec = resolve([load_recipe("digits").layer, override_layer(WORDS)], seed=0)
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        runner = _Runner(Store(Path(folder)), DataFolder.choose(None), device)
        for i in range(rounds + 1):
            sides = _through_lightning(runner, spec), _bare(runner, spec)
            assert all(map(torch.equal, *(weights for _, weights in sides))), "the two sides took other steps"
            if i:  # the first round warms up
                for side, (times, _) in zip((ours, bare), sides, strict=True):
                    side.append(1000 * median(after - before for before, after in pairwise(times)))
    difference = [a - b for a, b in zip(ours, bare, strict=True)]
    return [
        {
            "benchmark": "lightning",
            "case": f"{device_name(device)}, {len(times)} steps a round",
            "lightning_ms": round(median(ours), 3),
            "bare_ms": round(median(bare), 3),
            "difference_ms": round(median(difference), 3),
            "smallest_difference_ms": round(min(difference), 3),
        }
    ]


def _through_lightning(runner: _Runner, spec: RunSpec) -> tuple[list[float], list[Tensor]]:
    """When each step of a run ended, and the weights that it ended with."""
    clock = _Clock(runner.device)
    trained = runner.train(spec, RunOptions(stop=clock, checkpoint_seconds=1e9))
    assert trained.record["status"] == "ok", trained.record["reason"]
    return clock.times[:-1], list(runner.task.net.state_dict().values())  # the last one is the epoch's end


def _bare(runner: Runner, spec: RunSpec) -> tuple[list[float], list[Tensor]]:
    """The same, of a loop with nothing but the steps."""
    train, data = spec.train, runner.data(spec)
    assert isinstance(data, InMemoryData)
    net = build_model(spec.model, *spec.data.net_shape, seed=spec.seed)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net = net.to(runner.device)
    augment = Augment(spec.data, spec.data.classes, data.mean, data.std, train.memory_format)
    groups = weight_decay_groups(net, train.weight_decay)
    optimizer = torch.optim.AdamW(groups, betas=(train.betas[0], train.betas[1]), eps=train.eps, fused=True)
    times = []
    for step, batch in enumerate(train_loader(data.train, train.batch_size, spec.seed)):
        seed_generators(derive_seed(spec.seed, "step", 0, step), runner.device)
        images, targets = augment(*batch)
        loss = F.cross_entropy(net(images), targets, label_smoothing=train.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, step, len(data.train) // train.batch_size)
        optimizer.step()
        times.append(_now(runner.device))
    return times, list(net.state_dict().values())
