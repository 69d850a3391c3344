"""What a task is: what is trained and measured, declared without torch. Everything about it is asked of it by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from metaformer_ablate.errors import RequestError, unknown

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from torch.utils.data import DataLoader

    from metaformer_ablate.data.spec import DataSpec
    from metaformer_ablate.data.unreadable import Unreadable
    from metaformer_ablate.models.spec import ModelSpec
    from metaformer_ablate.settings.schema import Strict
    from metaformer_ablate.training.spec import TrainSpec


class RunSections(Protocol):
    """The sections of a resolved spec that a task reads. `RunSpec` has them; tasks know nothing else of it."""

    @property
    def model(self) -> ModelSpec: ...
    @property
    def data(self) -> DataSpec: ...
    @property
    def train(self) -> TrainSpec: ...
    @property
    def task(self) -> Strict | None: ...
    @property
    def seed(self) -> int: ...


class RecordedRun(Protocol):
    """What a task reads of a record. `Record` has it; tasks know nothing else of the results folder."""

    @property
    def run_id(self) -> str: ...
    @property
    def name(self) -> str | None: ...  # the row and seed that show it, where they were looked up
    @property
    def status(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def data(self) -> Mapping[str, Any]: ...  # record.json
    def spec(self) -> dict[str, Any]: ...
    def value(self, metric: str) -> float | None: ...
    def predictions(self) -> dict[str, np.ndarray]: ...


class TaskData(Protocol):
    """What a task is trained and evaluated on, opened for a device."""

    @property
    def sizes(self) -> tuple[int, int]:
        """Training images and evaluation images."""
        ...

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of pixels scaled to 0..1."""
        ...

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, of pixels scaled to 0..1."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What people have to know of it, a sentence each."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of the labels; empty where they are not known."""
        ...

    def train_loader(
        self, train: TrainSpec, seed: int, place: tuple[int, int], rank: int, unreadable: Unreadable
    ) -> DataLoader:
        """Batches for a device from (epoch, batch) on; images that cannot be read are noted in `unreadable`."""
        ...

    def evaluation_loader(self, train: TrainSpec, rank: int, unreadable: Unreadable) -> DataLoader:
        """A device's share of the images to evaluate, each once, in the order of the data set."""
        ...


@dataclass(frozen=True)
class CostPart:
    """A part of a net that is counted by itself: what is called, and an example of what it is called with."""

    name: str  # "net", or "backbone", "neck", "head"
    module: nn.Module
    inputs: tuple[Any, ...]


@dataclass(frozen=True)
class Metric:
    """A number of a task: how it is named, read and printed."""

    name: str  # key in record.json, in history.csv (val_<name>), in JSON and in a row's `paper`
    label: str  # "Top-1", "Box AP", "mIoU"
    unit: str = "%"  # "" for a loss; a difference is in points where the unit is %
    higher_is_better: bool = True
    digits: int = 2  # decimals of a measured value
    paper_digits: int = 1  # decimals as papers print it
    optional: bool = False  # a run may lack it: nothing of the kind to find, or no output of the net for it

    @property
    def heading(self) -> str:
        """`Top-1 (%)`, as tables and axes have it."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def phrase(self) -> str:
        """The label inside a sentence: `top-1`, `box AP`, `mIoU`."""
        first, rest = self.label[:1], self.label[1:]
        return first.lower() + rest if rest[:1].islower() else self.label

    @property
    def difference_unit(self) -> str:
        """What a difference of two values is in: points, or the unit itself."""
        return "points" if self.unit == "%" else self.unit

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.higher_is_better else -1


@dataclass(frozen=True)
class Task:
    """A task by name. Its parts are modules of its package, loaded when they are asked for.

    The parts: `data` (open_data, data_key), `net` (build_net, image_shape, cost_parts; no Lightning), `module`
    (build_module), `metrics`, `predictions` (check, per_image, same_images, derive), `trained` (a trained net is asked
    again), `export` and `error_analysis`. A task that lacks a part lacks the module.
    """

    name: str
    description: str
    package: str  # the package that holds the parts: "metaformer_ablate.tasks.classification"
    metrics: tuple[Metric, ...]  # of a record; the first is the one that is reported
    history: tuple[str, ...]  # metrics in the order of the val_ columns of history.csv
    settings: type[Strict] | None = None  # the section `task` of a spec; None: the spec has none
    files: tuple[str, ...] = ("predictions.npz",)  # of an ok record, beside spec.yaml, history.csv and record.json
    unread_evaluated: str = "they count as wrong unless guessed"  # of images to evaluate on that cannot be read
    derived: tuple[Metric, ...] = ()  # worked out from a record's predictions when asked for (`predictions.derive`)

    @property
    def reported(self) -> Metric:
        """The metric that tables show unless another is asked for."""
        return self.metrics[0]

    def metric(self, name: str | None = None) -> Metric:
        """A metric by name, or the reported one. Raises RequestError for another name."""
        if name is None:
            return self.reported
        named = (*self.metrics, *self.derived)
        for metric in named:
            if metric.name == name:
                return metric
        allowed = [metric.name for metric in named]
        raise RequestError(f"--metric: {unknown(f'metric of {self.name}', name, allowed)}")

    @property
    def history_columns(self) -> tuple[str, ...]:
        """The columns of history.csv; it may lack those of optional metrics."""
        return ("epoch", "step", "lr", "train_loss", *(f"val_{name}" for name in self.history), "seconds")

    @property
    def optional_columns(self) -> set[str]:
        return {f"val_{metric.name}" for metric in self.metrics if metric.optional}

    def part(self, name: str) -> ModuleType:
        """A part of the task by name. May load torch."""
        return import_module(f"{self.package}.{name}")

    def optional_part(self, name: str) -> ModuleType | None:
        """A part of the task by name; None where the task lacks it."""
        try:
            return self.part(name)
        except ModuleNotFoundError as error:
            lacking = f"{self.package}.{name}."
            if not lacking.startswith(f"{error.name}."):  # the part is there, something that it imports is not
                raise
            return None

    def unread(self, run: RunSections) -> dict[str, str]:
        """{setting by dotted path: why this task does not read it}; such a setting is null in a resolved spec."""
        return {}

    def not_applicable(self, run: RunSections) -> str | None:
        """Why a run makes no sense in this task, or None: its model does not fit the size of the images."""
        return None if run.data.image_size is None else run.model.not_applicable(run.data.image_size)
