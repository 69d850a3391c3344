"""What `ablate errors` asks of an error analysis, whatever the task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from metaformer_ablate.errors import NotAvailable, RequestError
from metaformer_ablate.tasks.base import RecordedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ErrorAnalysis:
    """What a run gets wrong, beside another run where one is given. Begins with what the predictions tell.

    `result` is what errors.json holds, `figures` are matplotlib's by name. Raises RequestError where a run has no
    predictions, or the two were not evaluated on the same images.

    A task names the `package` whose modules make it: summary (summary), comparison (comparison), text (describe) and
    figures (figures, against_classes). It adds what images and weights tell by `add_images` and `add_pictures`.
    """

    package: ClassVar[str]
    of_weights: ClassVar[str]  # what weights add

    def __init__(self, run: RecordedRun, other: RecordedRun | None = None):
        self.run, self.other = run, other
        self.result: dict[str, Any] = self._module("summary").summary(run)
        if other is not None:
            self.result["against"] = self._module("comparison").comparison(run, other)
        self.figures: dict[str, Figure] = self._module("figures").figures(self.result)
        if other is not None:
            self.figures["against"] = self._module("figures").against_classes(self.result)

    def _module(self, name: str) -> ModuleType:
        return import_module(f"{self.package}.{name}")

    @property
    def warnings(self) -> list[str]:
        return self.result["warnings"]

    def text(self) -> str:
        """The result in words."""
        return self._module("text").describe(self.result)

    def pngs(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of each figure."""
        from metaformer_ablate.drawing.pages import to_png

        for name, figure in self.figures.items():
            yield name, to_png(figure)

    def add_images(self, images: Any) -> None:
        """Adds what the images tell, as the task's `trained.open_images` opens them."""
        raise NotImplementedError

    def add_weights(self, check: dict[str, Any], of_other: bool = False) -> None:
        """Adds how closely the weights of the run, or of the other one, repeat its predictions."""
        (self.result["against"] if of_other else self.result)["weights"] = check

    def add_pictures(self, trained: Any, images: Any, layer: str | None) -> None:
        """Adds what a trained net tells of the images. Raises NotAvailable where there is nothing to show."""
        raise NotImplementedError


def refuse_probes(task: str, names: Iterable[str]) -> None:
    """Raises RequestError for a probe, of a task that has none."""
    for name in names:
        raise RequestError(f"--probe is {name!r}; allowed for runs of {task}: none")


def refuse_layer(task: str, shown: str, layer: str | None) -> None:
    """Raises NotAvailable for a layer, which is of Grad-CAM, of a task that shows something else."""
    if layer is not None:
        raise NotAvailable(f"Grad-CAM is of single labels; of {task} the {shown} themselves are shown")
