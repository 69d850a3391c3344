"""Small JPEGs that the tests make, in each layout that images are read from one by one."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from specs import spec_of

from metaformer_ablate.spec.run_spec import RunSpec

CLASSES = ("n2", "n10", "N3")  # in the order of the labels: 2, 3, 10
COUNTS = {"train": 16, "val": 7}  # images of each class
TRAIN, TEST = 3 * COUNTS["train"], 3 * COUNTS["val"]
# A run of two epochs, four steps each, of everything that the recipe draws at random.
SETTINGS: dict[str, Any] = {
    "data.num_classes": 3,
    "data.train_images": TRAIN,
    "data.test_images": TEST,
    "data.image_size": 32,
    "data.workers": 0,
    "model.depths": [1, 1, 1, 1],
    "model.dims": [8, 8, 16, 16],
    "model.drop_path": 0.2,
    "train.batch_size": 12,
    "train.epochs": 2,
    "train.warmup_epochs": 1,
    "train.cooldown_epochs": 0,
    "train.precision": "fp32",
    "train.threads": 1,
}


def pictures_spec(seed: int = 0, **settings: Any) -> RunSpec:
    return spec_of({**SETTINGS, **settings}, recipe="imagenet", seed=seed)


def write_folder(root: Path) -> Path:
    """root/{train,val}/CLASS/*.jpg: noise on a slope of colour, of many sizes, one of them grey and one a PNG."""
    draw = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                height, width = draw.integers(30, 90, 2)
                slope = np.linspace(0, 200, width)[None, :, None] * np.eye(3)[number]
                pixels = (slope + draw.integers(0, 56, (height, width, 3))).astype(np.uint8)
                picture, path = Image.fromarray(pixels), root / split / name / f"{i}.jpg"
                if i == 3:
                    picture, path = picture.convert("L"), path.with_name("x3.JPEG")
                if i == 4:
                    picture, path = picture.convert("RGBA"), path.with_suffix(".png")
                picture.save(path, format="PNG" if i == 4 else "JPEG")
    return root


def files_in_order(folder: Path) -> list[tuple[str, int, bytes]]:
    """(name, label, bytes) of each image of a split, as timm orders them."""
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    reader = ReaderImageFolder(str(folder))
    return [(reader.filename(i), label, Path(path).read_bytes()) for i, (path, label) in enumerate(reader.samples)]


def write_shards(folder: Path, root: Path, shards: int = 3) -> Path:
    """The images of a folder as WebDataset shards, in the same order."""
    root.mkdir()
    for split, word in (("train", "train"), ("val", "validation")):
        files = files_in_order(folder / split)
        for number in range(shards):
            begin, end = (len(files) * n // shards for n in (number, number + 1))
            with tarfile.open(root / f"imagenet1k-{word}-{number:02}.tar", "w") as archive:
                for i, (name, label, content) in enumerate(files[begin:end], begin):
                    members = {Path(name).suffix: content, ".cls": str(label).encode(), ".json": b"{}"}
                    for ending, data in members.items():
                        member = tarfile.TarInfo(f"{split}/{i:06}{ending}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))
    return root


def write_parquet(folder: Path, root: Path) -> Path:
    """The same as parquet files, as the package datasets writes them."""
    import datasets

    (root / "data").mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=3)})
    for split, word in (("train", "train"), ("val", "validation")):
        files = files_in_order(folder / split)
        columns = {"image": [{"bytes": c, "path": n} for n, _, c in files], "label": [label for _, label, _ in files]}
        made = datasets.Dataset.from_dict(columns, features=features)
        made.to_parquet(str(root / "data" / f"{word}-00000-of-00001.parquet"))
    return root
