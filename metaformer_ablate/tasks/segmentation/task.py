"""Semantic segmentation, as a task: its settings, its metrics and what of a spec it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from metaformer_ablate.models.spec import PRETRAINING_SIZE
from metaformer_ablate.settings.schema import (
    AboveZero,
    Fraction,
    Pair,
    Positive,
    Probability,
    Stages,
    Strict,
    name_in,
    setting,
)
from metaformer_ablate.tasks.base import Metric, RunSections, Task

Side = Annotated[int, Field(ge=1, le=16_384)]


class SegmentationSpec(Strict):
    """The section `task` of a spec: how images are cut, what masks hold, and the head."""

    name: Literal["segmentation"] = setting("segmentation", "segmentation")
    # Raised by hand whenever the same spec of this task would train differently.
    semantics: int = setting(1, "1")
    scale: Pair[Side] | None = setting(
        None,
        "two integers from 1 to 16384, the longest and the shortest side that an image is resized to fit in, or null "
        "to leave it as it is",
    )
    exact_size: Pair[Side] | None = setting(
        None,
        "two integers from 1 to 16384, height and width that every image is resized to whatever its aspect, or null; "
        "then scale and ratio are not read",
    )
    ratio: Pair[AboveZero] | None = setting(
        None, "two numbers above 0 between which a training image's scale is multiplied, or null"
    )
    crop: Pair[Side] | None = setting(
        None, "two integers from 1 to 16384, height and width of a training crop, or null for whole images"
    )
    crop_max_share: Fraction | None = setting(
        0.75, "a number from 0 to 1: a crop is drawn again while a class fills this share of it, up to ten times"
    )
    distortion: bool = setting(True, "true or false: brightness, contrast, saturation and hue drawn in training")
    eval_multiple: Positive = setting(32, "an integer of at least 1: evaluated images are resized to a multiple of it")
    first_class: Annotated[int, Field(ge=0, le=255)] | None = setting(
        0, "an integer from 0 to 255: what masks hold for the first class"
    )
    ignored: Stages[Annotated[int, Field(ge=0, le=65_535)]] | None = setting(
        (), "a list of integers from 0 to 65535: what masks hold, besides 255, where a pixel counts for nothing"
    )
    fpn_channels: Positive = setting(256, "an integer of at least 1")
    head_channels: Positive = setting(128, "an integer of at least 1")
    head_norm: Annotated[str, name_in("norm of the head", ("batch_norm", "group_norm"))] = setting(
        "batch_norm", "batch_norm, or group_norm (of 8 channels per group)"
    )
    head_dropout: Probability = setting(0.1, "a number of at least 0 and below 1")

    @field_validator("head_norm")
    @classmethod
    def _divides_the_channels(cls, value: str, info: ValidationInfo) -> str:
        channels = info.data.get("head_channels", 8)
        if value == "group_norm" and channels % max(1, channels // 8):
            raise ValueError("allowed: batch_norm, or group_norm with task.head_channels a multiple of 8")
        return value

    @property
    def head_groups(self) -> int | None:
        """Groups of the head's GroupNorm; None for batch norm."""
        return max(1, self.head_channels // 8) if self.head_norm == "group_norm" else None


def settings_of(run: RunSections) -> SegmentationSpec:
    """The section of a run of this task."""
    assert isinstance(run.task, SegmentationSpec)
    return run.task


def _resized_size(run: RunSections) -> tuple[int, int] | None:
    """Height and width that every image is resized to before a crop and `eval_multiple`; None where they differ."""
    task, pixels = settings_of(run), run.data.image_size
    if task.exact_size is not None:
        return task.exact_size[0], task.exact_size[1]
    return (pixels, pixels) if run.data.in_memory and task.scale is None and pixels is not None else None


def evaluated_size(run: RunSections) -> tuple[int, int] | None:
    """Height and width that every evaluated image has when the net sees it; None where they differ."""
    size, multiple = _resized_size(run), settings_of(run).eval_multiple
    if size is None:
        return None
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def net_size(run: RunSections) -> tuple[int, int] | None:
    """Height and width of all that the net ever sees; None where they differ, in training and evaluation too."""
    size = evaluated_size(run)
    return size if (settings_of(run).crop or _resized_size(run)) == size else None


def embedded_size(run: RunSections) -> tuple[int, int] | None:
    """Height and width that position embeddings are drawn for: whole images as evaluated; None where sizes vary."""
    return evaluated_size(run) if settings_of(run).crop is None else net_size(run)


def counted_size(run: RunSections) -> tuple[int, int]:
    """Height and width that costs are counted at: a training crop, or else an evaluated image, or what its scale says.

    Where images vary and nothing says their size, that of the images that models are pretrained on.
    """
    task = settings_of(run)
    height, width = task.crop or evaluated_size(run) or (task.scale or (PRETRAINING_SIZE,))[-1:] * 2
    return height, width


OF_CLASSES = (
    *("mixup", "cutmix", "cutmix_switch", "crop_padding", "crop_scale", "interpolation", "rand_augment"),
    *("random_erasing", "eval_crop", "eval_interpolation"),
)


@dataclass(frozen=True)
class SegmentationTask(Task):
    """Adds what of a spec the task reads."""

    def unread(self, run: RunSections) -> dict[str, str]:
        task, data = settings_of(run), run.data
        of_task = "the task is segmentation"
        found = {f"data.{field}": of_task for field in (*OF_CLASSES, "reader")}
        found["train.class_weights"] = of_task
        classifier = ("model.head", "model.head_norm", "model.head_dropout", "model.new_head")
        found |= dict.fromkeys(classifier, "a backbone has no classifier")
        if not data.in_memory:
            found["data.image_size"] = "task.scale, task.exact_size and task.crop say it"
        else:
            why = f"the class maps of {data.name} are made in memory"
            found |= {"task.first_class": why, "task.ignored": why}
        if task.exact_size is not None:
            found |= dict.fromkeys(("task.scale", "task.ratio"), "task.exact_size is set")
        if task.crop is None:
            found["task.crop_max_share"] = "task.crop is null"
        return found

    def not_applicable(self, run: RunSections) -> str | None:
        """Why a run's model is no backbone of images of these sizes, or None."""
        return run.model.not_a_backbone(net_size(run))


TASK = SegmentationTask(
    name="segmentation",
    description="a class for each pixel, by Semantic FPN: mIoU",
    package="metaformer_ablate.tasks.segmentation",
    metrics=(
        Metric("miou", "mIoU"),
        Metric("pixel_accuracy", "Pixel accuracy"),
        Metric("mean_accuracy", "Mean accuracy"),
        Metric("loss", "Loss", unit="", higher_is_better=False, digits=3, paper_digits=2),
    ),
    history=("loss", "miou", "pixel_accuracy", "mean_accuracy"),
    settings=SegmentationSpec,
    unread_evaluated="no pixel of them counts",
)
