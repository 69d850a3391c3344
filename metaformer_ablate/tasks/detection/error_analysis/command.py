"""What `ablate errors` asks for: numbers from predictions, figures, and what images and weights add to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import NotAvailable, RequestError
from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.detection.error_analysis.comparison import comparison
from metaformer_ablate.tasks.detection.error_analysis.kinds import Matched, match
from metaformer_ablate.tasks.detection.error_analysis.summary import class_names, read_checked, summary
from metaformer_ablate.tasks.detection.error_analysis.text import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from metaformer_ablate.tasks.detection.data import DetectionData
    from metaformer_ablate.tasks.detection.error_analysis.figures import Thing
    from metaformer_ablate.tasks.detection.trained import TrainedRun


PICTURES = 12  # on the sheet


def check_probes(names: Iterable[str]) -> None:
    """Raises RequestError: no probes are made for detection."""
    for name in names:
        raise RequestError(f"--probe is {name!r}; allowed for runs of detection: none")


class ErrorAnalysis:
    """What a run gets wrong, beside another run where one is given. Begins with what the predictions tell.

    `result` is what errors.json holds, `figures` are matplotlib's by name. Raises RequestError where a run has no
    predictions, or the two were not evaluated on the same images.
    """

    of_weights = "check of the weights"  # what weights add: the predictions of the record have the boxes

    def __init__(self, run: RecordedRun, other: RecordedRun | None = None):
        from metaformer_ablate.tasks.detection.error_analysis import figures

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

    def add_images(self, images: DetectionData) -> None:
        """Adds the worst images, with boxes and masks of what is right, wrong and missed, and their names."""
        from metaformer_ablate.data.unreadable import Seen
        from metaformer_ablate.tasks.detection.error_analysis import figures

        names = list(images.classes) or class_names(self.run.spec()["data"])
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

    def add_weights(self, check: dict[str, Any], of_other: bool = False) -> None:
        """Adds how closely the weights of the run, or of the other one, repeat its predictions."""
        (self.result["against"] if of_other else self.result)["weights"] = check

    def add_pictures(self, trained: TrainedRun, images: DetectionData, layer: str | None) -> None:
        """Nothing more: the boxes are in the record. Raises NotAvailable for a layer, which is of Grad-CAM."""
        if layer is not None:
            raise NotAvailable("Grad-CAM is of single labels; of detection the boxes themselves are shown")


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
