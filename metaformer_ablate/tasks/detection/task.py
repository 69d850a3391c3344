"""Detection, as a task: its metrics, its section of a spec, and what of a spec it does not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from metaformer_ablate.settings.schema import AboveZero, Positive, Strict, name_in, setting
from metaformer_ablate.tasks.base import Metric, RunSections, Task

# The side of the smallest anchor over the stride of its level, as the paper's configs have it.
ANCHOR_SCALES = {"retinanet": 4.0, "mask_rcnn": 8.0}

_OF_CLASSIFIER = ("model.head", "model.head_norm", "model.head_dropout", "model.new_head")

_OF_MASK_RCNN = ("proposals", "box_samples", "fc_width", "mask_width")


class DetectionSpec(Strict):
    """The section `task` of a spec: the detector around the backbone, and the size of its images."""

    name: Literal["detection"] = setting("detection", "detection")
    # Raised by hand whenever the same spec of this task would train differently.
    semantics: int = 1
    head: Annotated[str, name_in("head", tuple(ANCHOR_SCALES))] = setting(
        "retinanet", "retinanet (boxes) or mask_rcnn (boxes and masks)"
    )
    short_side: Positive | None = setting(800, "an integer of at least 1: pixels of an image's short side")
    long_side: Positive | None = setting(1333, "an integer of at least 1: pixels that the long side has at most")
    fpn_channels: Annotated[int, Field(ge=8, multiple_of=8)] = setting(
        256, "a multiple of 8: channels of the feature pyramid and of the heads' convolutions"
    )
    head_norm: Annotated[str, name_in("norm", ("none", "group_norm"))] = setting(
        "none", "none or group_norm (groups of 8 channels): after the convolutions of the pyramid and the heads"
    )
    anchor_scale: AboveZero | None = setting(
        None, "a number above 0, side of the smallest anchor over the stride; null for 4 (retinanet) or 8 (mask_rcnn)"
    )
    loss_images: Positive | None = setting(
        2, "an integer of at least 1, images that share the divisor of a loss; null for all of a batch"
    )
    proposals: Positive | None = setting(1000, "an integer of at least 1: proposals kept per image")
    box_samples: Positive | None = setting(512, "an integer of at least 1: proposals per image that are trained on")
    fc_width: Positive | None = setting(1024, "an integer of at least 1: width of the box head's hidden layers")
    mask_width: Annotated[int, Field(ge=8, multiple_of=8)] | None = setting(
        256, "a multiple of 8: channels of the mask head"
    )

    @field_validator("long_side")
    @classmethod
    def _at_least_the_short_side(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value < (info.data.get("short_side") or 0):
            raise ValueError("allowed: an integer of at least task.short_side")
        return value

    @property
    def has_masks(self) -> bool:
        return self.head == "mask_rcnn"

    @property
    def scale_of_anchors(self) -> float:
        return self.anchor_scale or ANCHOR_SCALES[self.head]


@dataclass(frozen=True)
class DetectionTask(Task):
    def unread(self, run: RunSections) -> dict[str, str]:
        why = "the task is detection"
        of_classes = ("data.mixup", "data.cutmix", "data.cutmix_switch", "data.crop_padding")
        of_crops = ("data.crop_scale", "data.interpolation", "data.rand_augment", "data.random_erasing")
        of_evaluation = ("data.eval_crop", "data.eval_interpolation", "train.label_smoothing", "train.class_weights")
        unread = dict.fromkeys((*of_classes, *of_crops, *of_evaluation), why)
        if run.data.in_memory:
            made = f"the images of {run.data.name} are made as large as data.image_size"
            unread |= dict.fromkeys(("task.short_side", "task.long_side"), made)
        else:
            unread["data.image_size"] = f"{why}: task.short_side and task.long_side say how large images are"
        unread |= dict.fromkeys(_OF_CLASSIFIER, f"{why}: no classifier")
        assert isinstance(run.task, DetectionSpec)
        if not run.task.has_masks:
            unread |= {f"task.{name}": f"task.head is {run.task.head}" for name in _OF_MASK_RCNN}
        return unread

    def not_applicable(self, run: RunSections) -> str | None:
        """Why a run's model is no backbone of images of these sizes, or None."""
        return run.model.not_a_backbone(net_size(run))


# Images are padded with zeros to a multiple of it (mmdet: Pad of size_divisor 32).
MULTIPLE = 32


def padded(side: int) -> int:
    return -side // MULTIPLE * -MULTIPLE


def net_size(run: RunSections) -> tuple[int, int] | None:
    """Height and width of all that the net ever sees; None where they differ."""
    size = run.data.image_size
    return None if size is None else (padded(size), padded(size))


_METRICS = (
    Metric("box_ap", "Box AP"),
    Metric("box_ap50", "Box AP50"),
    Metric("box_ap75", "Box AP75"),
    *(Metric(f"box_ap_{size}", f"Box AP {size}", optional=True) for size in ("small", "medium", "large")),
    *(Metric(f"mask_{name.lower()}", f"Mask {name}", optional=True) for name in ("AP", "AP50", "AP75")),
)


TASK = DetectionTask(
    name="detection",
    description="boxes, and masks with head mask_rcnn: COCO's average precision",
    package="metaformer_ablate.tasks.detection",
    metrics=_METRICS,
    history=tuple(metric.name for metric in _METRICS),
    settings=DetectionSpec,
)
