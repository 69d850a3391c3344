"""What the report says of the mistakes of a run: one line of a table."""

from __future__ import annotations

from metaformer_ablate.tasks.base import RecordedRun
from metaformer_ablate.tasks.segmentation.error_analysis.summary import summary

REPORT_COLUMNS = ("Most frequent mistakes", "Worst class, IoU (%)", "Best class, IoU (%)")


REPORT_NOTE = "One run of each row, from its predictions; shares of pixels. "


def report_line(run: RecordedRun) -> list[tuple[float | None, str]]:
    """The cells of REPORT_COLUMNS: the number that a cell sorts by, or None, and its text.

    Raises RequestError where the predictions cannot be read.
    """
    found = summary(run)
    pairs = [f"takes {p['label_name']} for {p['predicted_name']}: {p['share']:.1f}%" for p in found["pairs"][:3]]
    present = sorted((c for c in found["classes"] if c["iou"] is not None), key=lambda c: (c["iou"], c["class"]))
    ends = [(c["iou"], f"{c['name']}: {c['iou']:.1f}") for c in (present[0], present[-1])]
    return [(None, "; ".join(pairs) or "none"), *ends]
