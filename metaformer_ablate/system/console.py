"""Messages to standard error, and durations in words."""

from __future__ import annotations

import logging
import shutil
import sys
import textwrap

from metaformer_ablate.errors import visible

PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "error: "}


class ToStandardError(logging.Handler):
    """Writes a line to whatever standard error is by then: a live view and tests put something else in its place.

    Nothing in the line can steer the terminal. What cannot be written is an error, as it is for print.
    """

    def emit(self, record: logging.LogRecord) -> None:
        print(for_stderr(PREFIXES.get(record.levelno, "") + record.getMessage()), file=sys.stderr, flush=True)


NARROWEST = 40  # a terminal that is narrower folds lines by itself


def out_width() -> int | None:
    """Columns of the terminal that standard output is; None where it is none, and lines are as long as they are."""
    return _columns() if sys.stdout.isatty() else None


def _columns() -> int:
    return max(shutil.get_terminal_size().columns, NARROWEST)


def folded(text: str, width: int | None, indent: str = "") -> str:
    """A line folded between words to a width; what follows the first line is indented. No word is broken."""
    if width is None or len(text) <= width:
        return text
    whole = {"break_long_words": False, "break_on_hyphens": False}
    start = text[: len(text) - len(text.lstrip())]
    return textwrap.fill(text, width, subsequent_indent=start + indent, **whole)  # type: ignore[arg-type]


def for_stderr(text: str) -> str:
    """A message that cannot steer a terminal, folded where standard error is one."""
    return folded(visible(text), _columns() if sys.stderr.isatty() else None, "  ")


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
