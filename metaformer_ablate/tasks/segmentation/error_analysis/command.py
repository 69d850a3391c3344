"""What `ablate errors` asks for: numbers from predictions, figures, and what images and weights add to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import NotAvailable, RequestError
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.segmentation.error_analysis.comparison import comparison
from metaformer_ablate.tasks.segmentation.error_analysis.summary import summary
from metaformer_ablate.tasks.segmentation.error_analysis.text import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from metaformer_ablate.tasks.segmentation.data import SegmentationData
    from metaformer_ablate.tasks.segmentation.trained import TrainedRun


PICTURES = 8  # on the sheet


def check_probes(names: Iterable[str]) -> None:
    """Raises RequestError: no probes are made for segmentation."""
    for name in names:
        raise RequestError(f"--probe is {name!r}; allowed for runs of segmentation: none")


class ErrorAnalysis:
    """What a run gets wrong, beside another run where one is given. Begins with what the predictions tell.

    `result` is what errors.json holds, `figures` are matplotlib's by name. Raises RequestError where a run has no
    predictions, or the two were not evaluated on the same images.
    """

    of_weights = "pictures of masks"  # what weights add

    def __init__(self, run: RecordedRun, other: RecordedRun | None = None):
        from metaformer_ablate.tasks.segmentation.error_analysis import figures

        self.run, self.other = run, other
        self.result = summary(run)
        if other is not None:
            self.result["against"] = comparison(run, other)
        self.figures: dict[str, Figure] = figures.figures(self.result)
        if other is not None:
            self.figures["against"] = figures.against_classes(self.result)

    @property
    def warnings(self) -> list[str]:
        return self.result["warnings"]

    def text(self) -> str:
        """The result in words."""
        return describe(self.result)

    def pngs(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of each figure."""
        from metaformer_ablate.drawing.pages import to_png

        for name, figure in self.figures.items():
            yield name, to_png(figure)

    def add_images(self, images: SegmentationData) -> None:
        """Adds the names of the worst images."""
        for line in self.result["worst"]:
            line["name"] = images.evaluation.pairs.name(line["index"])

    def add_weights(self, check: dict[str, Any], of_other: bool = False) -> None:
        """Adds how closely the weights of the run, or of the other one, repeat its predictions."""
        (self.result["against"] if of_other else self.result)["weights"] = check

    def add_pictures(self, trained: TrainedRun, images: SegmentationData, layer: str | None) -> None:
        """Adds the worst images with their masks and what the net makes of them. Raises NotAvailable for a layer, which
        is of Grad-CAM."""
        from metaformer_ablate.tasks.segmentation.error_analysis import figures
        from metaformer_ablate.tasks.segmentation.transforms import IGNORE

        if layer is not None:
            raise NotAvailable("Grad-CAM is of single labels; of segmentation the masks themselves are shown")
        shown = []
        for line in self.result["worst"][:PICTURES]:
            image, mask, predicted = trained.maps(images, line["index"])
            shown.append(figures.Shown(image, mask, predicted, f"{line['name']}\nIoU {line['iou']:.1f}%"))
        self.figures["masks"] = figures.masks(self.result, shown, IGNORE)
