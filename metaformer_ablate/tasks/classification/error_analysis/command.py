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
    from metaformer_ablate.tasks.classification.trained import EvaluatedImages, TrainedRun

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

    def add_images(self, images: EvaluatedImages) -> None:
        """Adds sheets of mistakes, the files of images and, where it is known, accuracy by object size."""
        from metaformer_ablate.tasks.classification.error_analysis import figures, image_sheets
        from metaformer_ablate.tasks.classification.error_analysis.accuracy import by_object_size
        from metaformer_ablate.tasks.classification.error_analysis.object_size import object_sizes

        examples = self.result["against"]["examples"].values() if self.other is not None else ()
        for line in [line for lines in (self.result["mistakes"], *examples) for line in lines]:
            if (file := images.file_of(line["index"])) is not None:
                line["file"] = file
        if self.result["mistakes"]:
            self.figures["mistakes"] = image_sheets.mistakes(self.result, images.at)
        if self.other is not None:
            self.figures |= image_sheets.against_sheets(self.result["against"], images.at)
        places, sizes, how = object_sizes(images, facts_of(self.run.spec()["data"]).plain_background)
        self.result["object_size_method"] = how
        if len(places):
            found = {name: values[places] for name, values in read_predictions(self.run).items()}
            self.result["object_size"] = by_object_size(sizes, found["label"], per_image(found))
            self.figures["object_size"] = figures.object_size(self.result["object_size"], self.result)

    def add_pictures(self, trained: TrainedRun, images: EvaluatedImages, layer: str | None) -> None:
        """Adds Grad-CAM of the most confident mistakes, if there are mistakes.

        Raises NotAvailable where the model has no map to show or captum is not there, RequestError for another layer.
        """
        from metaformer_ablate.tasks.classification.error_analysis import image_sheets
        from metaformer_ablate.tasks.classification.error_analysis.gradcam import choose_layer, gradcam, maps_of

        if not self.result["mistakes"]:
            return
        lines = self.result["mistakes"][:CAM_MISTAKES]
        chosen = images.at([line["index"] for line in lines])
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

    def add_probes(self, names: Iterable[str], runs: Sequence[tuple[TrainedRun, EvaluatedImages]]) -> None:
        """Adds accuracy as the images change, of one trained run or of two."""
        from metaformer_ablate.tasks.classification.error_analysis import image_sheets
        from metaformer_ablate.tasks.classification.error_analysis.probes import PROBES, curve, examples

        self.result["probes"] = {}
        where = f"{self.result['dataset']} ({self.result['split']})"
        for name in dict.fromkeys(names):
            logger.info(f"probe {name}: {len(PROBES[name].severities)} severities")
            found = curve(name, runs)
            self.result["probes"][name] = found
            shown = [(s, pictures[0]) for s, pictures in examples(name, runs[0][1].at([0]))]
            self.figures[f"probe_{name}"] = image_sheets.probe(name, found, shown, where)
