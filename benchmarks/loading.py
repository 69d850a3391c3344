"""Images a second that loader processes decode and augment at 224, ours and timm's loader in turns on the same files.

On the pictures of `$ABLATE_DATA` (a folder `train` or `imagenet-sample/train` of classes), and on the same ones
enlarged and written anew so that pixels and bytes are about ImageNet's in the mean: the sample's are smaller, and cost
less to decode. Without a folder, on made-up JPEGs. Each line says which.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageFilter

SIZE = 224
BATCH = 32
IMAGES = 256
# Of ImageNet's training images in the mean: 469 x 387 pixels, and 147.9 GB over 1,281,167 of them.
IMAGENET_PIXELS = 469 * 387
IMAGENET_BYTES = 115_000
PIECES = {
    "evaluation": {"is_training": False, "interpolation": "bicubic", "crop_pct": 0.9},
    "training": {
        "is_training": True,
        "scale": (0.08, 1.0),
        "color_jitter": 0.4,
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "interpolation": "random",
        "re_prob": 0.25,
        "re_mode": "pixel",
    },
}


def measure(rounds: int = 3) -> list[dict[str, object]]:
    """Medians over rounds, each side in turn, of images a second: for one and for two loader processes."""
    with tempfile.TemporaryDirectory() as made:
        return [
            _case(root, about, piece, workers, rounds)
            for root, about in _pictures(Path(made))
            for piece in PIECES
            for workers in (1, 2)
        ]


def _case(root: Path, about: str, piece: str, workers: int, rounds: int) -> dict[str, object]:
    sides = {"ours": _ours(root, piece, workers), "timm": _timm(root, piece, workers)}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, loader in sides.items():
            start, seen = time.perf_counter(), 0
            for images, *_ in loader:
                seen += len(images)
            if i:  # the first round starts the processes
                rates[name].append(seen / (time.perf_counter() - start))
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["timm"], strict=True)]
    return {
        "benchmark": "loading",
        "case": f"{piece} at {SIZE}, {workers} processes" if workers > 1 else f"{piece} at {SIZE}, 1 process",
        "pictures": about,
        "images_per_second": round(median(rates["ours"]), 1),
        "images_per_second_a_process": round(median(rates["ours"]) / workers, 1),
        "timm_images_per_second": round(median(rates["timm"]), 1),
        "ratio_to_timm": round(median(ratios), 3),
    }


def _ours(root: Path, piece: str, workers: int) -> object:
    """Our loader over the first IMAGES pictures, without the part that is done on the device."""
    from metaformer_ablate.data.listings import FolderListing
    from metaformer_ablate.data.readers import FolderReader, Source
    from metaformer_ablate.data.unreadable import Unreadable
    from metaformer_ablate.settings.layers import Layer
    from metaformer_ablate.spec.experiment import load_recipe
    from metaformer_ablate.spec.resolve import resolve
    from metaformer_ablate.tasks.classification.data.image_files import (
        EvaluationImages,
        ImageFileData,
        TrainingImages,
    )
    from metaformer_ablate.tasks.classification.data.transforms import evaluation_transform, training_transform

    few = {"train.batch_size": BATCH, "data.train_images": IMAGES, "data.test_images": IMAGES}
    spec = resolve([load_recipe("imagenet").layer, Layer(few, lambda path: "benchmark")], 0)
    listing = FolderListing.of(root)
    source, first = Source(FolderReader(listing), listing.labels), np.arange(min(IMAGES, len(listing.labels)))
    train = TrainingImages(source, training_transform(spec.data), first, erasing=spec.data.random_erasing or 0.0)
    data = ImageFileData(train, EvaluationImages(source, evaluation_transform(spec.data), first), workers, False)
    if piece == "training":
        return data.train_loader(spec.train, 0, (0, 0), 0, Unreadable(0))
    return data.evaluation_loader(spec.train, 0, Unreadable(0))


def _timm(root: Path, piece: str, workers: int) -> object:
    """timm's loader with the same arguments, without its prefetcher's part, which is done on the device."""
    from timm.data import ImageDataset, create_loader
    from torch.utils.data import DataLoader, Subset

    from metaformer_ablate.tasks.classification.data.transforms import posterize

    whole = ImageDataset(str(root))
    loader = create_loader(
        whole,
        input_size=(3, SIZE, SIZE),
        batch_size=BATCH,
        num_workers=workers,
        device=torch.device("cpu"),
        **PIECES[piece],
    )
    for step in whole.transform.transforms:
        for op in getattr(step, "ops", ()):
            if op.name == "PosterizeIncreasing":
                op.aug_fn = posterize  # with Pillow 13 timm's own ends the round
    first = Subset(whole, range(min(IMAGES, len(whole))))
    return DataLoader(
        first,
        batch_size=BATCH,
        shuffle=piece == "training",
        num_workers=workers,
        collate_fn=loader.loader.collate_fn,
        persistent_workers=True,
    )


def _pictures(made: Path) -> list[tuple[Path, str]]:
    """Folders of classes, and what they are."""
    given = os.environ.get("ABLATE_DATA")
    for folder in (Path(given) / "imagenet-sample" / "train", Path(given) / "train") if given else ():
        if folder.is_dir():
            return [(folder, folder.parent.name), _enlarged(folder, made)]
    draw = np.random.default_rng(0)
    (made / "class").mkdir()
    for i in range(IMAGES):
        noise = Image.fromarray(draw.integers(0, 256, (375, 500, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(2)).save(made / "class" / f"{i}.jpg", quality=90)
    return [(made, "made up, 500 x 375")]


def _enlarged(folder: Path, made: Path) -> tuple[Path, str]:
    """The first pictures of a folder at ImageNet's mean number of pixels, each in its own shape, and near its mean of
    bytes."""
    (made / "class").mkdir()
    names = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg"))[:IMAGES]
    pictures = []
    for name in names:
        picture = Image.open(name).convert("RGB")
        times = (IMAGENET_PIXELS / (picture.width * picture.height)) ** 0.5
        size = (round(picture.width * times), round(picture.height * times))
        pictures.append(picture.resize(size, Image.Resampling.BICUBIC))
    for quality in range(75, 101):
        sizes = []
        for i, picture in enumerate(pictures):
            path = made / "class" / f"{i:03}.jpg"
            picture.save(path, quality=quality)
            sizes.append(path.stat().st_size)
        mean = sum(sizes) / len(sizes)
        if mean >= IMAGENET_BYTES:
            break
    return made, f"{folder.parent.name} enlarged to {IMAGENET_PIXELS:,} pixels and {mean / 1000:.0f} kB in the mean"
