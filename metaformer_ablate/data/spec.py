"""Settings of the data, and which of them a data set reads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metaformer_ablate.data.datasets import DATASETS, split_sizes
from metaformer_ablate.settings.schema import (
    Float,
    Fraction,
    NotNegative,
    Pair,
    Positive,
    Strict,
    execution_setting,
    later_setting,
    name_in,
    setting,
)


class DataSpec(Strict):
    """The images: which set, at what size, how augmented, and which split is evaluated.

    A set that is read image by image (`imagenet`) has the numbers of classes and images of the original unless others
    are set: for a subset, or for another set that lies in folders as it does.
    """

    name: Annotated[str, name_in("data set", DATASETS)] = setting(..., "one of: " + ", ".join(DATASETS))
    image_size: Annotated[int, Field(ge=4, le=4096)] | None = setting(..., "an integer from 4 to 4096: pixels per side")
    evaluate_on: Annotated[str, name_in("split", ("test", "holdout"))] = setting(
        "test", "test, or holdout (every tenth training image, for choosing a recipe)"
    )
    num_classes: Annotated[int, Field(ge=2, le=65_536)] | None = setting(None, "an integer from 2 to 65536")
    train_images: Positive | None = setting(None, "an integer of at least 1: training images there are")
    test_images: Positive | None = setting(None, "an integer of at least 1: evaluation images there are")
    flip: bool | Annotated[str, name_in("way to flip", ("alternating",))] | None = setting(
        False,
        "true or false: flip left to right at random; or alternating (a set in memory): in every other epoch",
    )
    crop_padding: Annotated[int, Field(ge=0)] | None = setting(
        0, "an integer of at least 0: pixels of padding before a random crop"
    )
    crop_scale: Pair[Fraction] | None = setting(
        (0.08, 1.0), "two numbers from 0 to 1: the share of the picture in a crop"
    )
    interpolation: Annotated[str, name_in("interpolation", ("random", "bilinear", "bicubic"))] | None = setting(
        "random", "random (bilinear or bicubic, drawn for each image), bilinear or bicubic: of training crops"
    )
    rand_augment: str | None = setting(None, "a policy string as timm reads it, or null for none")
    random_erasing: Fraction | None = setting(0.0, "a number from 0 to 1: probability of a rectangle of noise")
    eval_crop: Annotated[Float, Field(gt=0, le=1)] | None = setting(
        0.9, "a number above 0 and at most 1: the share of the resized side that the centre crop keeps"
    )
    eval_interpolation: Annotated[str, name_in("interpolation", ("bilinear", "bicubic"))] | None = setting(
        "bicubic", "bilinear or bicubic"
    )
    mixup: NotNegative = setting(0.0, "a number of at least 0: alpha, 0 for none")
    cutmix: NotNegative = setting(0.0, "a number of at least 0: alpha, 0 for none")
    cutmix_switch: Fraction | None = setting(0.5, "a number from 0 to 1: how often CutMix is drawn where both are on")
    # Of a folder of images, as `ablate init NAME --data DIR` finds it.
    set: str | None = later_setting("text: what a folder of images is called")
    channels: Literal[1, 3] | None = later_setting("1 or 3: channels of the images in a folder")
    held_in: Annotated[str, name_in("place", ("memory", "disk"))] | None = later_setting(
        "memory or disk: where a folder of images is held while it is trained on (null: disk)"
    )
    # How a set that is read image by image gets here.
    reader: Annotated[str, name_in("reader", ("auto", "folder", "tar", "hf"))] | None = execution_setting(
        "auto", "auto, folder (of images), tar (WebDataset shards) or hf (a Hugging Face datasets folder)"
    )
    workers: Annotated[int, Field(ge=0, le=1024)] | None = execution_setting(
        None,
        "an integer from 0 to 1024: processes that read images, of each device; null for as many as there are cores",
    )
    max_unreadable: Annotated[int, Field(ge=0)] | None = execution_setting(
        50, "an integer of at least 0: images that may be missing or damaged before the run fails"
    )

    @property
    def in_memory(self) -> bool:
        """Whether the set is held as tensors on the training device."""
        return DATASETS[self.name].in_memory or self.held_in == "memory"

    @property
    def classes(self) -> int:
        return self.num_classes or DATASETS[self.name].num_classes

    @property
    def net_shape(self) -> tuple[int, int, int]:
        """Channels of an image, classes and pixels per side: what a classifier is built for."""
        assert self.image_size is not None, f"the images of {self.name} are of many sizes"
        return self.image_channels, self.classes, self.image_size

    @property
    def image_channels(self) -> int:
        return self.channels or DATASETS[self.name].channels

    def split_sizes(self) -> tuple[int, int]:
        """How many images are trained on and evaluated on."""
        facts = DATASETS[self.name]
        return split_sizes(
            self.train_images or facts.train_images, self.test_images or facts.test_images, self.evaluate_on
        )


def unread_data(data: DataSpec) -> dict[str, str]:
    unread_fields = {}
    if data.name != "folder":
        unread_fields = dict.fromkeys(("set", "channels", "held_in"), f"{data.name} is no folder of one's own")
    if data.in_memory:
        of_files: tuple[str, ...] = ("workers", "max_unreadable")
        if data.name != "folder":
            of_files = ("num_classes", "train_images", "test_images", "reader", *of_files)
        of_large = ("crop_scale", "interpolation", "rand_augment", "random_erasing", "eval_crop", "eval_interpolation")
        unread_fields |= dict.fromkeys(of_files, f"{data.name} is not read image by image")
        unread_fields |= dict.fromkeys(of_large, f"the images of {data.name} are small")
    else:
        unread_fields["crop_padding"] = f"the images of {data.name} are cropped by crop_scale"
    if not (data.mixup and data.cutmix):
        unread_fields["cutmix_switch"] = "mixup and cutmix are not both on"
    return unread_fields
