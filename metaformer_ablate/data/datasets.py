"""The data sets by name: what `show` and `cost` have to know of them without the data. Holds no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from metaformer_ablate.data.class_names import ADE20K_CLASSES, CIFAR100_CLASSES, COCO_CLASSES
from metaformer_ablate.errors import RequestError, unknown

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class DatasetInfo:
    """Facts of a data set. `files` are relative to the data folder; their bytes, and those of `embedded`, make the data
    fingerprint."""

    about: str
    num_classes: int
    channels: int
    native_size: int | None  # pixels per side; None: images differ
    train_images: int
    test_images: int
    files: tuple[str, ...] = ()
    embedded: tuple[str, ...] = ()  # files that scikit-learn brings along, relative to its package `datasets`
    in_memory: bool = True  # held as tensors on the training device, augmented there in batches
    classes: tuple[str, ...] = ()  # names in the order of the labels; empty: labels are shown as numbers
    task: str = "classification"  # what its labels are for
    layout: str = "images"  # of one that is read image by image: how its files lie (data/folder.py, LAYOUTS)
    plain_background: bool = False  # one thing before an even background, so that its size can be measured
    folder: str | None = None  # of one that lies in a folder: that folder's name, where it is not the data set's

    @property
    def in_folder(self) -> bool:
        """Whether it lies in a folder that has to be looked at, and not in known files."""
        return not self.files and not self.embedded

    def class_name(self, label: int) -> str:
        """The name of a label, from 0; its number where the classes are not those of the original."""
        return self.known_classes[label] if self.known_classes else f"class {label}"

    @property
    def known_classes(self) -> tuple[str, ...]:
        """In the order of the labels; empty where they are not those of the original."""
        return self.classes if len(self.classes) == self.num_classes else ()

    @property
    def class_names(self) -> list[str]:
        """In the order of the labels."""
        return [self.class_name(label) for label in range(self.num_classes)]


# What scikit-learn brings along.
DIGITS = "data/digits.csv.gz"
PHOTOGRAPHS = ("images/china.jpg", "images/flower.jpg")


DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        "scikit-learn's 1,797 handwritten digits of 8 x 8, embedded; every fifth of each class is evaluated on",
        num_classes=10,
        channels=1,
        native_size=8,
        train_images=1442,
        test_images=355,
        embedded=(DIGITS,),
        classes=tuple("0123456789"),
        plain_background=True,
    ),
    "scenes_detection": DatasetInfo(
        "3,000 scenes composed of scikit-learn's digits over its two photographs, embedded: 3 to 6 digits in each",
        num_classes=10,
        channels=3,
        native_size=None,
        train_images=2500,
        test_images=500,
        embedded=(DIGITS, *PHOTOGRAPHS),
        classes=tuple("0123456789"),
        task="detection",
    ),
    "scenes_segmentation": DatasetInfo(
        "2,250 scenes composed of scikit-learn's digits over its two photographs, darkened, embedded: 3 to 6 digits in "
        "each, with a class for each pixel: the background, or one of ten digits",
        num_classes=11,
        channels=3,
        native_size=None,
        train_images=2000,
        test_images=250,
        embedded=(DIGITS, *PHOTOGRAPHS),
        classes=("background", *"0123456789"),
        task="segmentation",
    ),
    "fashion_mnist": DatasetInfo(
        "Fashion-MNIST, 28 x 28 grey, the official 60,000 / 10,000 split",
        num_classes=10,
        channels=1,
        native_size=28,
        train_images=60_000,
        test_images=10_000,
        files=tuple(
            f"FashionMNIST/raw/{part}-{kind}-ubyte"
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        ),
        classes=(
            "T-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        plain_background=True,
    ),
    "cifar10": DatasetInfo(
        "CIFAR-10, 32 x 32 colour, the official 50,000 / 10,000 split",
        num_classes=10,
        channels=3,
        native_size=32,
        train_images=50_000,
        test_images=10_000,
        files=tuple(
            f"cifar-10-batches-py/{file}"
            for file in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
        ),
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": DatasetInfo(
        "CIFAR-100, 32 x 32 colour, the official 50,000 / 10,000 split",
        num_classes=100,
        channels=3,
        native_size=32,
        train_images=50_000,
        test_images=10_000,
        files=("cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta"),
        classes=CIFAR100_CLASSES,
    ),
    "imagenet": DatasetInfo(
        "ImageNet-1K, 1,281,167 training and 50,000 validation images",
        num_classes=1000,
        channels=3,
        native_size=None,
        train_images=1_281_167,
        test_images=50_000,
        in_memory=False,
    ),
    "imagenette": DatasetInfo(
        "Imagenette, ten classes of ImageNet that are easily told apart: 9,469 training and 3,925 validation images, "
        "the shorter side 160 pixels",
        num_classes=10,
        channels=3,
        native_size=None,
        train_images=9469,
        test_images=3925,
        classes=(
            "tench",
            "English springer",
            "cassette player",
            "chain saw",
            "church",
            "French horn",
            "garbage truck",
            "gas pump",
            "golf ball",
            "parachute",
        ),
        folder="imagenette2-160",
    ),
    # What is true of it stands in the recipe that `ablate init NAME --data DIR` writes.
    "folder": DatasetInfo(
        "any folder of images, which `ablate init NAME --data DIR` looks at",
        num_classes=0,
        channels=3,
        native_size=None,
        train_images=0,
        test_images=0,
        in_memory=False,
    ),
    "coco": DatasetInfo(
        "COCO 2017, 118,287 training and 5,000 validation images with boxes and masks of 80 categories, or any set "
        "with annotation files in COCO's format",
        num_classes=80,
        channels=3,
        native_size=None,
        train_images=118_287,
        test_images=5000,
        in_memory=False,
        layout="coco",
        classes=COCO_CLASSES,
        task="detection",
    ),
    "ade20k": DatasetInfo(
        "ADE20K's SceneParsing benchmark, 20,210 training and 2,000 validation images with a mask of 150 classes, or "
        "any folder of images and masks of the same names",
        num_classes=150,
        channels=3,
        native_size=None,
        train_images=20_210,
        test_images=2000,
        in_memory=False,
        layout="masks",
        classes=ADE20K_CLASSES,
        task="segmentation",
    ),
    "camvid": DatasetInfo(
        "CamVid as SegNet has it, 367 training and 101 validation frames of streets with a mask of 11 classes, or "
        "any folder of images and masks of the same names",
        num_classes=11,
        channels=3,
        native_size=None,
        train_images=367,
        test_images=101,
        in_memory=False,
        layout="masks",
        classes=(
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        task="segmentation",
    ),
}


def facts_of(data: Mapping[str, Any]) -> DatasetInfo:
    """The facts of a spec's data set, with the numbers that it says, if it does.

    Raises RequestError where there is no such data set.
    """
    if data["name"] not in DATASETS:
        raise RequestError(unknown("data set", data["name"], DATASETS))
    facts = DATASETS[data["name"]]
    numbers = {key: data.get(key) or getattr(facts, key) for key in ("num_classes", "train_images", "test_images")}
    return replace(facts, **numbers)


def data_name(data: Mapping[str, Any]) -> str:
    """What people call a spec's data set: a folder of images by its own name."""
    return data.get("set") or data["name"]


def every_fifth_of_a_class(labels: np.ndarray) -> np.ndarray:
    """[N]: whether an image is evaluated on, of labels [N] of a set that has no official split, class by class.

    (Every fifth of all would take 21 of one digit and 52 of another: classes come in an order.)
    """
    import numpy as np

    rank = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    return rank % 5 == 4


# Of an evaluation on `holdout`, every tenth training image: recipes are chosen there, never on the test split.
HOLDOUT_EVERY = 10


def split_sizes(train_images: int, test_images: int, evaluate_on: str) -> tuple[int, int]:
    """How many images are trained on and evaluated on, of so many training and test images."""
    if evaluate_on == "test":
        return train_images, test_images
    held_out = train_images // HOLDOUT_EVERY
    return train_images - held_out, held_out
