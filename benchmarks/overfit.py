"""Whether dense nets learn a handful of real images by heart: net, loss, data and metric together.

Semantic FPN on the 16 training frames of CamVid's sample in `$ABLATE_DATA` (or in its folder `camvid`), which are
evaluated too: whole frames of 256 x 192, no distortion of colours, a larger net than the recipe's. RetinaNet on the 20
training images of COCO's sample (or in the folder `coco`), short side 256, from random weights, with the small anchors,
the strides and the GroupNorm of the recipe `scenes_detection`. What is learnt by heart says nothing about other images.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from metaformer_ablate.data import coco_files
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.mask_files import find_location
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import override_layer

CAMVID = (
    "model.size=t12",
    "task.distortion=false",
    "task.fpn_channels=128",
    "task.head_channels=64",
    "task.head_dropout=0",
    "data.test_images=16",
    "data.flip=false",
    "train.lr=2e-3",
    "train.warmup_epochs=0.5",
)
COCO = (
    "data.name=coco",
    "data.image_size=null",
    "data.train_images=20",
    "data.test_images=20",
    "data.workers=1",
    "task.short_side=256",
    "task.long_side=384",
    "model.init_from=null",
    "train.batch_size=4",
    "train.lr=2e-3",
    "train.warmup_epochs=5",
)
EVERY = 20  # epochs of the curve


def camvid(epochs: int = 400) -> Iterator[dict[str, object]]:
    """The curve: mIoU and loss of the frames that are trained on. Nothing where there is no data."""
    place = find_location(Path(os.environ.get("ABLATE_DATA", ".")), "camvid")
    if place is None:
        return
    files = place.splits["train"]
    spec = resolve([load_recipe("camvid_semantic_fpn").layer, override_layer((*CAMVID, f"train.epochs={epochs}"))])
    with tempfile.TemporaryDirectory() as made:
        for split in ("train", "val"):
            for kind, folder in (("images", files.images), ("annotations", files.masks)):
                (Path(made) / kind).mkdir(exist_ok=True)
                (Path(made) / kind / split).symlink_to(folder.resolve())
        yield from _curve(
            spec, Path(made), {"loss": "val_loss", "miou": "val_miou", "pixel_accuracy": "val_pixel_accuracy"}
        )


def coco(epochs: int = 160, over: Iterable[str] = ()) -> Iterator[dict[str, object]]:
    """The curve: box AP and AP50 of the images that are trained on, with words over the settings. Nothing where there
    is no data."""
    place = coco_files.find_location(Path(os.environ.get("ABLATE_DATA", ".")), "coco")
    if place is None:
        return
    words = override_layer((*COCO, f"train.epochs={epochs}"))
    spec = resolve([load_recipe("scenes_detection").layer, words, override_layer(over)])
    with tempfile.TemporaryDirectory() as made:
        for split in ("train", "val"):
            (Path(made) / split).symlink_to(place.images["train"].resolve())
            (Path(made) / f"instances_{split}.json").symlink_to(place.annotations["train"].resolve())
        yield from _curve(
            spec, Path(made), {"train_loss": "train_loss", "box_ap": "val_box_ap", "box_ap50": "val_box_ap50"}
        )


def _curve(spec: RunSpec, folder: Path, columns: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """A line for each EVERY epochs of a run on the data in a folder: columns of its history under other names."""
    runner = Runner(Store(folder / "results"), DataFolder(folder, given=True), torch.device("cpu"))
    history = runner.run(spec).history()
    for line in history:
        if line["epoch"] % EVERY == 0 or line is history[-1]:
            values = {name: round(line[column], 3 if "loss" in name else 2) for name, column in columns.items()}
            yield {"epoch": int(line["epoch"]), "steps": int(line["step"]), **values, "seconds": round(line["seconds"])}
