"""How far confidence can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.tasks.classification.error_analysis.accuracy import accuracy

if TYPE_CHECKING:
    from numpy.typing import NDArray


BINS = 15


CALIBRATION = (
    f"expected calibration error of the top confidence: {BINS} bins of equal width, each with its upper edge, "
    "weighted by their images (Guo et al. 2017)"
)


def calibration(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> dict[str, Any]:
    """Whether the top confidence (0 to 1) can be taken for the share of right answers.

    `ece` is never 0 of finitely many images: `ece_if_calibrated` is what a model with these confidences would show
    if each were exactly the chance to be right (mean and 95% quantile of 200 draws with a fixed seed).
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence, side="left")  # a value on an edge belongs to the bin below it
    n = len(confidence)

    def error(answers: NDArray[Any]) -> float:
        return 100 * float(np.abs(np.bincount(place, weights=answers - confidence, minlength=bins)).sum()) / n

    generator = np.random.default_rng(0)
    drawn = [error(generator.random(n) < confidence) for _ in range(200)]
    lines = []
    for i in range(bins):
        inside = place == i
        mean = 100 * float(confidence[inside].mean()) if inside.any() else None
        edge = {"above": 100 * float(edges[i]), "to": 100 * float(edges[i + 1])}
        lines.append({**edge, "confidence": mean, **accuracy(right[inside])})
    return {
        "method": CALIBRATION,
        "ece": error(right),
        "ece_if_calibrated": {"mean": float(np.mean(drawn)), "q95": float(np.quantile(drawn, 0.95))},
        "mean_confidence": 100 * float(confidence.mean()),
        "bins": lines,
    }
