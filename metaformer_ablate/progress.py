"""What a person sees while a sweep trains: a live line on a terminal, plain lines on a pipe. Standard error only."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.sweep import Job, Listener

if TYPE_CHECKING:
    from metaformer_ablate.records import Record
    from metaformer_ablate.run import Progress

PLAIN_LINE_SECONDS = 10.0


def say(text: str) -> None:
    """A line to standard error."""
    print(text, file=sys.stderr, flush=True)


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


def describe_result(record: Record) -> str:
    """`top-1 98.05%`, or the status with its reason."""
    if record.status != "ok":
        return f"{record.status}: {record.data['reason']}"
    chance = " (at chance)" if record.data.get("at_chance") else ""
    return f"top-1 {record.top1:.2f}%{chance}"


class _Clock(Listener):
    """Time left: the first guess is the estimate; once runs report, what they took counts."""

    def begin(self, jobs: Sequence[Job], seconds: float) -> None:
        self.count, self.finished, self.estimate = len(jobs), 0, seconds
        self.begun = time.monotonic()

    def left(self, share: float) -> float:
        """Seconds left when `share` of the running job is done."""
        passed, done = time.monotonic() - self.begun, self.finished + share
        if done < 0.05:
            return max(self.estimate - passed, 0.0)
        return passed / done * (self.count - done)

    def status(self, job: Job, progress: Progress) -> str:
        parts = [f"[{self.finished + 1}/{self.count}] {job.name}", f"epoch {progress.epoch}/{progress.epochs}"]
        if progress.train_loss is not None:
            parts += [f"loss {progress.train_loss:.3f}", f"top-1 {progress.top1:.2f}%"]
        parts += [f"{progress.images_per_second:.0f} images/s", f"{duration(self.left(progress.share))} left"]
        return ", ".join(parts)

    def finish(self, job: Job, record: Record) -> None:
        self.finished += 1

    def result(self, job: Job, record: Record) -> str:
        return (
            f"[{self.finished}/{self.count}] {job.name}: {describe_result(record)}, {duration(record.data['seconds'])}"
        )


class PlainLines(_Clock):
    """For a pipe: a line when a run starts, at most one every ten seconds while it trains, and one when it ends."""

    def start(self, job: Job) -> None:
        say(f"[{self.finished + 1}/{self.count}] {job.name} ({job.spec.run_id}): starts")
        self.told = time.monotonic()

    def progress(self, job: Job, progress: Progress) -> None:
        if time.monotonic() - self.told >= PLAIN_LINE_SECONDS:
            self.told = time.monotonic()
            say(self.status(job, progress))

    def finish(self, job: Job, record: Record) -> None:
        super().finish(job, record)
        say(self.result(job, record))


class LiveLine(_Clock):
    """For a terminal: one line that follows the run, and a line that stays for each run that ended."""

    def begin(self, jobs: Sequence[Job], seconds: float) -> None:
        super().begin(jobs, seconds)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        self.bars: Any = Bars(BarColumn(24), TextColumn("{task.description}", markup=False), console=console)
        self.task = self.bars.add_task("", total=len(jobs))
        self.bars.start()

    def start(self, job: Job) -> None:
        text = f"[{self.finished + 1}/{self.count}] {job.name}: starts"
        self.bars.update(self.task, completed=self.finished, description=text)

    def progress(self, job: Job, progress: Progress) -> None:
        completed = self.finished + progress.share
        self.bars.update(self.task, completed=completed, description=self.status(job, progress))

    def finish(self, job: Job, record: Record) -> None:
        super().finish(job, record)
        self.bars.console.print(self.result(job, record), markup=False, highlight=False)
        self.bars.update(self.task, completed=self.finished)

    def close(self) -> None:
        """Takes the live line off the screen."""
        if hasattr(self, "bars"):
            self.bars.stop()
