"""What `ablate errors` asks for: numbers from predictions, figures, and what images and weights add to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from metaformer_ablate.tasks.error_analysis import analysis

if TYPE_CHECKING:
    from metaformer_ablate.tasks.segmentation.data import SegmentationData
    from metaformer_ablate.tasks.segmentation.trained import TrainedRun


PICTURES = 8  # on the sheet


def check_probes(names: Iterable[str]) -> None:
    """Raises RequestError: no probes are made for segmentation."""
    analysis.refuse_probes("segmentation", names)


class ErrorAnalysis(analysis.ErrorAnalysis):
    """Confused pixels, and with weights pictures of masks."""

    package = __package__
    of_weights = "pictures of masks"

    def add_images(self, images: SegmentationData) -> None:
        """Adds the names of the worst images."""
        for line in self.result["worst"]:
            line["name"] = images.evaluation.pairs.name(line["index"])

    def add_pictures(self, trained: TrainedRun, images: SegmentationData, layer: str | None) -> None:
        """Adds the worst images with their masks and what the net makes of them. Raises NotAvailable for a layer, which
        is of Grad-CAM."""
        from metaformer_ablate.tasks.segmentation.error_analysis import figures
        from metaformer_ablate.tasks.segmentation.transforms import IGNORE

        analysis.refuse_layer("segmentation", "masks", layer)
        shown = []
        for line in self.result["worst"][:PICTURES]:
            image, mask, predicted = trained.maps(images, line["index"])
            shown.append(figures.Shown(image, mask, predicted, f"{line['name']}\nIoU {line['iou']:.1f}%"))
        self.figures["masks"] = figures.masks(self.result, shown, IGNORE)
