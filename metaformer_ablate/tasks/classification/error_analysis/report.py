"""What the report says of the mistakes of a run: one line of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metaformer_ablate.tasks.classification.error_analysis.summary import summary

if TYPE_CHECKING:
    from metaformer_ablate.records.record import Record

REPORT_COLUMNS = ("Most frequent mistakes", "Worst class (%)", "Calibration error (points)")


REPORT_NOTE = (
    "One run of each row, from its predictions. Intervals are Wilson's at 95% over the images, not over seeds. "
)


def report_line(record: Record) -> list[tuple[float | None, str]]:
    """The cells of REPORT_COLUMNS: the number that a cell sorts by, or None, and its text.

    Raises RequestError where the predictions cannot be read.
    """
    found = summary(record)
    pairs = [f"{p['label_name']} for {p['predicted_name']}: {p['count']} of {p['of']}" for p in found["pairs"][:3]]
    worst = min((c for c in found["classes"] if c["images"]), key=lambda c: c["accuracy"])
    low, high = worst["ci95"]
    ece = found["calibration"]["ece"]
    return [
        (None, "; ".join(f"takes {pair}" for pair in pairs) or "none"),
        (worst["accuracy"], f"{worst['name']}: {worst['accuracy']:.1f} [{low:.1f}, {high:.1f}]"),
        (ece, f"{ece:.1f}"),
    ]
