"""Which detections are right, and of what kind the others are. Needs numpy alone.

The kinds are those of TIDE (Bolya et al. 2020, arXiv 2008.08115), with its thresholds: a box is in its place from an
IoU of 0.5 on, and over something from 0.1 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer_ablate.tasks.detection.predictions import Arrays, per_image_parts

IN_PLACE, OVER = 0.5, 0.1  # IoU

RIGHT, CLASS, PLACE, BOTH, TWICE, NOTHING, IGNORED = range(7)
KINDS = {
    CLASS: "another class, in its place",
    PLACE: "out of place",
    BOTH: "another class and out of place",
    TWICE: "found twice",
    NOTHING: "nothing there",
}


@dataclass(frozen=True, eq=False)
class Matched:
    """The detections of an image, in their order, and its truths, crowds left out."""

    part: dict[str, Any]  # of per_image_parts
    kind: NDArray[np.int64]  # [n] of each detection; IGNORED for one within a crowd
    truth: NDArray[np.int64]  # [n]: the truth that a detection is of, or over; -1 for NOTHING and IGNORED
    truths: NDArray[np.int64]  # [t]: indices of the truths that are no crowds

    @cached_property
    def truth_labels(self) -> NDArray[np.int64]:
        return self.part["truth_label"][self.truths].astype(np.int64)

    def found(self, score: float) -> NDArray[np.int64]:
        """[t]: the right detection of each truth at scores from `score` on, or -1."""
        return self._of(RIGHT, score)

    def taken_for(self, score: float) -> NDArray[np.int64]:
        """[t]: the surest detection that is in a truth's place and of another class, where none is right; or -1."""
        return np.where(self.found(score) < 0, self._of(CLASS, score), -1)

    def _of(self, kind: int, score: float) -> NDArray[np.int64]:
        of_truth = np.full(len(self.truths), -1)
        chosen = np.flatnonzero((self.kind == kind) & (self.part["score"] >= score))
        for i in chosen[np.argsort(self.part["score"][chosen], kind="stable")]:  # the surest last
            of_truth[self.truth[i]] = i
        return of_truth

    def false(self, score: float) -> NDArray[np.int64]:
        """The detections that are neither right nor ignored, at scores from `score` on."""
        return np.flatnonzero((self.kind != RIGHT) & (self.kind != IGNORED) & (self.part["score"] >= score))


def match(predictions: Arrays) -> list[Matched]:
    """Each image's detections, the surest first as COCO's evaluation takes them: one is right where a truth of its
    class is in its place and not yet found. A detection of which half lies within a crowd of its class is ignored."""
    return [_match(part) for part in per_image_parts(predictions)]


def _match(part: dict[str, Any]) -> Matched:
    truths = np.flatnonzero(~part["truth_crowd"])
    ious = overlap(part["box"], part["truth_box"][truths])
    crowds = np.flatnonzero(part["truth_crowd"])
    within = overlap(part["box"], part["truth_box"][crowds], of_first=True)
    within = within * (part["label"][:, None] == part["truth_label"][crowds])
    same = part["label"][:, None] == part["truth_label"][truths]
    count = len(part["box"])
    kind, truth = np.full(count, NOTHING), np.full(count, -1)
    taken = np.zeros(len(truths), dtype=bool)
    for i in np.argsort(-part["score"], kind="stable") if len(truths) else ():
        own, other = ious[i] * same[i], ious[i] * ~same[i]
        free = own * ~taken
        for name, values, least in (
            (RIGHT, free, IN_PLACE),
            (TWICE, own, IN_PLACE),
            (CLASS, other, IN_PLACE),
            (PLACE, own, OVER),
            (BOTH, other, OVER),
        ):
            if values.max() >= least:
                kind[i], truth[i] = name, values.argmax()
                break
        if kind[i] == RIGHT:
            taken[truth[i]] = True
    ignored = (kind != RIGHT) & (within.max(axis=1, initial=0) >= IN_PLACE)
    kind[ignored], truth[ignored] = IGNORED, -1
    return Matched(part, kind, truth, truths)


def overlap(one: NDArray[Any], other: NDArray[Any], of_first: bool = False) -> NDArray[np.float64]:
    """IoU [n, m] of boxes [n, 4] and [m, 4]; with `of_first` what is shared, by the area of the first."""
    one, other = one.astype(np.float64)[:, None], other.astype(np.float64)[None]
    sides = (np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])).clip(min=0)
    shared = sides.prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(axis=-1) for boxes in (one, other)]
    whole = areas[0] + (0 if of_first else areas[1] - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=np.broadcast_to(whole > 0, shared.shape))


def best_score(images: Sequence[Matched]) -> float:
    """The score from which on detections have the highest F1, the harmonic mean of precision and recall; of equals the
    highest. 1 where nothing is right."""
    scores = np.concatenate([found.part["score"][found.kind != IGNORED] for found in images])
    right = np.concatenate([found.kind[found.kind != IGNORED] == RIGHT for found in images])
    if not right.any():
        return 1.0
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + sum(len(found.truths) for found in images))
    last = np.append(np.diff(scores[order]) < 0, True)  # of those with one score all or none are taken
    return float(scores[order][last][f1[last].argmax()])
