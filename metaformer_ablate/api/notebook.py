"""Progress in a notebook: a bar that is drawn again in its place, without widgets, and one line once it is over."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from html import escape
from typing import Any

from metaformer_ablate.records.claims import Progress
from metaformer_ablate.records.record import Record
from metaformer_ablate.sweep.jobs import Job
from metaformer_ablate.sweep.progress import SweepClock
from metaformer_ablate.system.console import duration

REDRAW_SECONDS = 0.5


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose front end shows HTML."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


class NotebookBar(SweepClock):
    """A bar for all runs, with time passed and left, and a line for each run under way."""

    def begin(self, jobs: Sequence[Job], seconds: float | None = None) -> None:
        from IPython.display import HTML, display

        super().begin(jobs, seconds)
        self._html: Any = HTML
        self._ended = {"ok": 0, "diverged": 0, "failed": 0}
        self._lines: dict[str, list[str]] = {}  # of the runs under way
        self._notes: list[str] = []
        self._drawn = time.monotonic()
        self._display: Any = display(HTML(self._text()), display_id=True)

    def start(self, job: Job) -> None:
        self._lines[job.spec.run_id] = [f"{self.number(job)} {job.name}: starts"]
        self._draw(at_once=True)

    def progress(self, job: Job, progress: Progress) -> None:
        super().progress(job, progress)
        self._lines[job.spec.run_id] = self.status(job, progress)
        self._draw()

    def finish(self, job: Job, record: Record) -> None:
        super().finish(job, record)
        self._lines.pop(job.spec.run_id, None)
        self._ended[record.status] += 1
        self._draw(at_once=True)

    def note(self, text: str) -> None:
        self._notes.append(text)
        self._draw(at_once=True)

    def close(self) -> None:
        """Leaves one line in place of the bar."""
        if hasattr(self, "_display"):
            ended = ", ".join(f"{number} {status}" for status, number in self._ended.items() if number) or "none ended"
            text = f"{self.count} runs: {ended}; {duration(self.elapsed)}"
            self._display.update(self._html(_broken([text, *self._notes])))

    def _draw(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._display.update(self._html(self._text()))

    def _text(self) -> str:
        left = self.left()
        told = "" if left is None else f", about {duration(left)} left"
        bar = f'<progress value="{self.share:.3f}" max="1"></progress>'
        text = f"{self.finished} of {self.count} runs, {duration(self.elapsed)}{told}"
        return f"{bar} {_broken([text, *map(', '.join, self._lines.values()), *self._notes])}"


def _broken(lines: Sequence[str]) -> str:
    return "<br>".join(map(escape, lines))
