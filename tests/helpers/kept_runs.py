"""Trained runs that keep their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from specs import build_net, fake_record, spec_of
from torch import Tensor

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.data.in_memory import load_images

CPU = torch.device("cpu")


FOLDER = DataFolder(Path("nowhere"), given=True)  # the digits are embedded


SMALL = {"model.depths": [1, 1, 1, 1], "model.dims": [8, 8, 16, 16], "model.head_dim": 8}


def digits_spec(**settings: Any) -> RunSpec:
    return spec_of(SMALL | {key.replace("__", "."): value for key, value in settings.items()})


def net_of(spec: RunSpec) -> torch.nn.Module:
    """A net as if it had been trained: one whose features differ from image to image, which at its start they hardly
    do, and whose head has the nearest class mean of the training images as its answer."""
    net = build_net(spec).eval()
    data = load_images(spec.data, FOLDER)
    augment = Augment(spec.data, 10, data.mean, data.std, spec.train.memory_format)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith((".weight", ".scale")) and p.requires_grad and not name.startswith("head"):
                p.mul_(3 if p.ndim > 1 else 1)
        features: list[Tensor] = []
        handle = net.head.fc.register_forward_pre_hook(lambda module, given: features.append(given[0].flatten(1)))
        net(augment.normalise(data.train.images))
        handle.remove()
        found = features[0]
        if found.shape[1] != net.head.fc.weight.shape[1]:  # the classifier stands before the mean over positions
            found = found.unflatten(1, (net.head.fc.weight.shape[1], -1)).mean(2)
        means = torch.stack([found[data.train.labels == k].mean(0) for k in range(10)])
        means = means / found.std()
        net.head.fc.weight.copy_(means / found.std())
        net.head.fc.bias.copy_(-means.square().sum(1) / 2)
    return net


def keep(store: Store, spec: RunSpec, net: torch.nn.Module | None = None, **options: Any) -> Record:
    """The record that a net leaves, its predictions worked out here, and its weights beside it."""
    net = net or net_of(spec)
    data = load_images(spec.data, FOLDER)
    pixels = data.evaluation.images.float() / 255
    with torch.no_grad():
        shown = (pixels - torch.tensor(data.mean)[:, None, None]) / torch.tensor(data.std)[:, None, None]
        shares = net(shown).softmax(1)
    confidence, predicted = shares.max(1)
    predictions = {
        "label": data.evaluation.labels.numpy().astype(np.uint8),
        "predicted": predicted.numpy().astype(np.uint8),
        "confidence": confidence.numpy(),
    }
    options.setdefault("device", device_name(CPU))
    top1 = 100 * float((predicted == data.evaluation.labels).float().mean())
    record = fake_record(
        store, spec, top1, fingerprint=FOLDER.fingerprint("digits"), predictions=predictions, **options
    )
    save(record, net.state_dict())
    return record


def save(record: Record, weights: dict[str, Tensor]) -> None:
    torch.save({"state_dict": {f"net.{name}": p for name, p in weights.items()}}, record.folder / "last.ckpt")


def changed(weights: dict[str, Tensor], by: float) -> dict[str, Tensor]:
    found = {name: p.clone() for name, p in weights.items()}
    found["head.fc.bias"][3] += by
    return found
