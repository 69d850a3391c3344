"""What the report says of the mistakes of a run: one line of a table."""

from __future__ import annotations

from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.detection.error_analysis.kinds import best_score, match
from metaformer_ablate.tasks.detection.error_analysis.summary import (
    confusions,
    counts,
    frequent_pairs,
    read_checked,
)
from metaformer_ablate.tasks.error_analysis.runs import facts_of_run

REPORT_COLUMNS = ("Most frequent confusions", "Found (%)", "Right of the detections (%)")


REPORT_NOTE = (
    "One run of each row, from its predictions, at the score of its highest F1; in its place is a box from an IoU of "
    "0.5 on. "
)


def report_line(run: RecordedRun) -> list[tuple[float | None, str]]:
    """The cells of REPORT_COLUMNS: the number that a cell sorts by, or None, and its text.

    Raises RequestError where the predictions cannot be read.
    """
    names = facts_of_run(run).class_names
    images = match(read_checked(run, names))
    score = best_score(images)
    found, pairs = counts(images, score), frequent_pairs(confusions(images, score, len(names)), names)[:3]
    taken = [f"takes {p['label_name']} for {p['predicted_name']}: {p['count']} of {p['of']}" for p in pairs]
    shares = [(found[key], "-" if found[key] is None else f"{found[key]:.1f}") for key in ("recall", "precision")]
    return [(None, "; ".join(taken) or "none"), *shares]
