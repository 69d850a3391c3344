"""Messages to standard error, and durations in words."""

from __future__ import annotations

import logging
import sys

from metaformer_ablate.errors import visible

PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "error: "}


class ToStandardError(logging.Handler):
    """Writes a line to whatever standard error is by then: a live view and tests put something else in its place.

    Nothing in the line can steer the terminal. What cannot be written is an error, as it is for print.
    """

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(PREFIXES.get(record.levelno, "") + record.getMessage()), file=sys.stderr, flush=True)


def log_to_stderr() -> None:
    """Sends what the package logs to standard error. For a process of its own: a command, a worker, a rank, a job.

    A program that imports the package decides by itself where its messages go.
    """
    logger = logging.getLogger("metaformer_ablate")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, ToStandardError) for handler in logger.handlers):
        logger.addHandler(ToStandardError())


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
