"""The time, as records and files of a study hold it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """UTC to the second, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
