"""What is said on standard error, and durations in words."""

from __future__ import annotations

import sys

from metaformer_ablate.errors import visible


def say(text: str) -> None:
    """A line to standard error. Nothing in it can steer the terminal."""
    print(visible(text), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`42 s`, `3 min`, `2 h 05 min`, `12 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds > 2 * 86400:
        return f"{seconds / 86400:,.0f} days"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"
