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
from metaformer_ablate.sweep.progress import describe_evaluation
from metaformer_ablate.sweep.scheduler import ProgressListener
from metaformer_ablate.system.console import duration

REDRAW_SECONDS = 0.5


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose front end shows HTML."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return type(get_ipython()).__name__ == "ZMQInteractiveShell"


class NotebookBar(ProgressListener):
    """A bar for all runs, with time passed and left, and a line for each run under way."""

    def begin(self, jobs: Sequence[Job], seconds: float | None = None) -> None:
        from IPython.display import HTML, display

        self._html: Any = HTML
        self._count, self._ended = len(jobs), {"ok": 0, "diverged": 0, "failed": 0}
        self._under_way: dict[str, tuple[str, Progress | None]] = {}  # run id: its name and how far it is
        self._notes: list[str] = []
        self._begun = self._drawn = time.monotonic()
        self._display: Any = display(HTML(self._text()), display_id=True)

    def start(self, job: Job) -> None:
        self._under_way[job.spec.run_id] = (job.name, None)
        self._draw(at_once=True)

    def progress(self, job: Job, progress: Progress) -> None:
        self._under_way[job.spec.run_id] = (job.name, progress)
        self._draw()

    def finish(self, job: Job, record: Record) -> None:
        self._under_way.pop(job.spec.run_id, None)
        self._ended[record.status] += 1
        self._draw(at_once=True)

    def note(self, text: str) -> None:
        self._notes.append(text)
        self._draw(at_once=True)

    def close(self) -> None:
        """Leaves one line in place of the bar."""
        if not hasattr(self, "_display"):
            return
        ended = ", ".join(f"{number} {status}" for status, number in self._ended.items() if number) or "none ended"
        text = f"{self._count} runs: {ended}; {duration(time.monotonic() - self._begun)}"
        self._display.update(self._html(_lines([text, *self._notes])))

    def _draw(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._display.update(self._html(self._text()))

    def _text(self) -> str:
        finished, passed = sum(self._ended.values()), time.monotonic() - self._begun
        done = finished + sum(progress.share for _, progress in self._under_way.values() if progress)
        left = f", about {duration(passed / done * (self._count - done))} left" if done >= 0.05 else ""
        bar = f'<progress value="{done:.3f}" max="{self._count}"></progress>'
        lines = [f"{finished} of {self._count} runs, {duration(passed)}{left}"]
        for name, progress in self._under_way.values():
            far = [f"epoch {progress.epoch}/{progress.epochs}", *describe_evaluation(progress)] if progress else []
            lines.append(", ".join([name, *(far or ["starts"])]))
        return f"{bar} {_lines([*lines, *self._notes])}"


def _lines(texts: Sequence[str]) -> str:
    return "<br>".join(map(escape, texts))
