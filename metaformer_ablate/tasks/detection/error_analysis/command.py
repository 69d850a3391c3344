"""What `ablate errors` asks for: numbers from predictions, figures, and what images and weights add to them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from metaformer_ablate.tasks.detection.error_analysis.kinds import Matched, match
from metaformer_ablate.tasks.detection.error_analysis.summary import read_checked
from metaformer_ablate.tasks.error_analysis import analysis
from metaformer_ablate.tasks.error_analysis.runs import facts_of_run

if TYPE_CHECKING:
    from metaformer_ablate.tasks.detection.data import DetectionData
    from metaformer_ablate.tasks.detection.error_analysis.figures import Thing
    from metaformer_ablate.tasks.detection.trained import TrainedRun


PICTURES = 12  # on the sheet


def check_probes(names: Iterable[str]) -> None:
    """Raises RequestError: no probes are made for detection."""
    analysis.refuse_probes("detection", names)


class ErrorAnalysis(analysis.ErrorAnalysis):
    """Missed and wrong boxes, and pictures of them."""

    package = __package__
    of_weights = "check of the weights"  # the predictions of the record have the boxes

    def add_images(self, images: DetectionData) -> None:
        """Adds the worst images, with boxes and masks of what is right, wrong and missed, and their names."""
        from metaformer_ablate.data.unreadable import Seen
        from metaformer_ablate.tasks.detection.error_analysis import figures

        names = list(images.classes) or facts_of_run(self.run).class_names
        matched = match(read_checked(self.run, names))
        examples = images.evaluation.examples
        for line in self.result["worst"]:
            line["name"] = examples.name(line["index"])
        shown = []
        for line in self.result["worst"][:PICTURES]:
            try:
                picture = examples.picture(line["index"], Seen()).permute(1, 2, 0).numpy()
            except Exception:  # whatever decoders raise: there is no picture to show
                continue
            caption = f"{line['name']}\n{line['found']} of {line['truths']} found, {line['false']} wrong"
            things = things_of(matched[line["index"]], self.result["score"], names)
            shown.append(figures.Shown(picture, things, caption))
        if shown:
            self.figures["pictures"] = figures.pictures(self.result, shown)

    def add_pictures(self, trained: TrainedRun, images: DetectionData, layer: str | None) -> None:
        """Nothing more: the boxes are in the record. Raises NotAvailable for a layer, which is of Grad-CAM."""
        analysis.refuse_layer("detection", "boxes", layer)


def things_of(found: Matched, score: float, names: list[str]) -> list[Thing]:
    """What of an image is right, wrong and missed, in this order from the bottom up."""
    from metaformer_ablate.data import run_lengths
    from metaformer_ablate.tasks.detection.error_analysis.figures import Thing

    part, right = found.part, found.found(score)
    missed = found.truths[right < 0]
    masks: dict[tuple[str, int], Any] = {}
    for of, chosen in (("", [*right[right >= 0], *found.false(score)]), ("truth_", missed)):
        if f"{of}codes" in part:
            codes = [part[f"{of}codes"][i] for i in chosen]
            decoded = run_lengths.decode(codes, (int(part["size"][0]), int(part["size"][1])))
            masks |= {(of, int(i)): mask for i, mask in zip(chosen, decoded, strict=True)}
    things = []
    for state, chosen, of in (("missed", missed, "truth_"), ("wrong", found.false(score), ""), ("right", right, "")):
        for i in (int(i) for i in chosen if i >= 0):
            text = names[part[f"{of}label"][i]] + ("" if of else f" {part['score'][i]:.2f}")
            things.append(Thing(part[f"{of}box"][i].tolist(), text, state, masks.get((of, i))))
    return things
