"""The toy task: its metric, its section of a spec, and what of a spec it does not read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.settings.schema import Strict, setting
from metaformer_ablate.tasks.base import Metric, RunSections, Task


class ToySpec(Strict):
    """The section `task` of a spec."""

    name: Literal["toy"] = setting("toy", "toy")
    semantics: int = 1


@dataclass(frozen=True)
class ToyTask(Task):
    def unread(self, run: RunSections) -> dict[str, str]:
        of_classes = ("data.mixup", "data.cutmix", "data.flip", "data.crop_padding", "train.label_smoothing")
        return dict.fromkeys(of_classes, "the task is toy")


TASK = ToyTask(
    name="toy",
    description="the mean grey of an image",
    package="toy_task",
    metrics=(Metric("rmse", "RMSE", unit="", higher_is_better=False, digits=4),),
    history=("rmse",),
    settings=ToySpec,
)


DATA_NAME = "grey_digits"


# One number per image is what a net of one class gives.
GREY_DIGITS = replace(DATASETS["digits"], task="toy", num_classes=1, classes=(), plain_background=False)
