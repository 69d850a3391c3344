"""What `ablate errors` asks for: numbers from predictions, figures, and what images and weights add to them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from metaformer_ablate.data.datasets import facts_of
from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.tasks.classification.error_analysis.summary import PROBE_NAMES
from metaformer_ablate.tasks.classification.predictions import per_image, read_predictions
from metaformer_ablate.tasks.error_analysis import analysis

if TYPE_CHECKING:
    from metaformer_ablate.tasks.classification.data.in_memory import InMemoryData
    from metaformer_ablate.tasks.classification.trained import TrainedRun

logger = logging.getLogger(__name__)


CAM_MISTAKES = 12


def check_probes(names: Iterable[str]) -> None:
    """Raises RequestError for a probe that there is not."""
    for name in names:
        if name not in PROBE_NAMES:
            raise RequestError(f"--probe: {unknown('probe', name, PROBE_NAMES)}")


class ErrorAnalysis(analysis.ErrorAnalysis):
    """Mistakes, calibration, and with weights Grad-CAM and probes."""

    package = __package__
    of_weights = "Grad-CAM"

    def add_images(self, images: InMemoryData) -> None:
        """Adds sheets of mistakes and, before an even background, accuracy by object size."""
        from metaformer_ablate.tasks.classification.error_analysis import figures, image_sheets
        from metaformer_ablate.tasks.classification.error_analysis.accuracy import by_object_size

        pixels = images.evaluation.images.numpy()  # [N, C, H, W]
        if self.result["mistakes"]:
            self.figures["mistakes"] = image_sheets.mistakes(self.result, pixels)
        if self.other is not None:
            self.figures |= image_sheets.against_sheets(self.result["against"], pixels)
        if facts_of(self.run.spec()["data"]).plain_background:
            found = read_predictions(self.run)
            lines = by_object_size(pixels.transpose(0, 2, 3, 1), found["label"], per_image(found))
            self.result["object_size"] = lines
            self.figures["object_size"] = figures.object_size(lines, self.result)

    def add_pictures(self, trained: TrainedRun, images: InMemoryData, layer: str | None) -> None:
        """Adds Grad-CAM of the most confident mistakes, if there are mistakes.

        Raises NotAvailable where the model has no map to show or captum is not there, RequestError for another layer.
        """
        from metaformer_ablate.tasks.classification.error_analysis import image_sheets
        from metaformer_ablate.tasks.classification.error_analysis.gradcam import choose_layer, gradcam, maps_of

        if not self.result["mistakes"]:
            return
        lines = self.result["mistakes"][:CAM_MISTAKES]
        chosen = images.evaluation.images[[line["index"] for line in lines]]
        maps = maps_of(trained, chosen)
        name = choose_layer(maps, layer)
        heat = {
            key: gradcam(trained, name, chosen, [line[key] for line in lines]).numpy() for key in ("predicted", "label")
        }
        mistakes = [{**line, **{f"map_{key}": heat[key][i].tolist() for key in heat}} for i, line in enumerate(lines)]
        self.result["gradcam"] = {
            "layer": name,
            "map": list(maps[name]),
            "layers": {key: list(size) for key, size in maps.items()},
            "mistakes": mistakes,
        }
        self.figures["gradcam"] = image_sheets.gradcam(self.result, self.result["gradcam"], chosen.numpy(), heat)

    def add_probes(self, names: Iterable[str], runs: Sequence[tuple[TrainedRun, InMemoryData]]) -> None:
        """Adds accuracy as the images change, of one trained run or of two."""
        from metaformer_ablate.tasks.classification.error_analysis import image_sheets
        from metaformer_ablate.tasks.classification.error_analysis.probes import PROBES, curve, examples

        self.result["probes"] = {}
        where = f"{self.result['dataset']} ({self.result['split']})"
        for name in dict.fromkeys(names):
            logger.info(f"probe {name}: {len(PROBES[name].severities)} severities")
            found = curve(name, runs)
            self.result["probes"][name] = found
            shown = [(s, pictures[0]) for s, pictures in examples(name, runs[0][1].evaluation.images[:1])]
            self.figures[f"probe_{name}"] = image_sheets.probe(name, found, shown, where)
