"""What a person sees while a sweep trains: a live line on a terminal, plain lines on a pipe. Standard error only."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import visible
from metaformer_ablate.sweep.jobs import Job
from metaformer_ablate.sweep.scheduler import ProgressListener
from metaformer_ablate.system.console import duration

if TYPE_CHECKING:
    from metaformer_ablate.records.claims import Progress
    from metaformer_ablate.records.record import Record
    from metaformer_ablate.tasks.base import Metric

logger = logging.getLogger(__name__)


PLAIN_LINE_SECONDS = 10.0


def name_in_text(metric: Metric) -> str:
    """A metric's label within a sentence: a word begins small there, an abbreviation stays as it is."""
    return metric.label[:1].lower() + metric.label[1:] if metric.label[1:2].islower() else metric.label


def describe_metric(metric: Metric, value: float) -> str:
    """Label and value within a sentence: `box AP 36.2%`."""
    unit = metric.unit if metric.unit in ("", "%") else f" {metric.unit}"
    return f"{name_in_text(metric)} {value:.{metric.digits}f}{unit}"


def describe_result(record: Record) -> str:
    """The reported metric of a run that is ok, or the status with its reason."""
    if record.status != "ok":
        return f"{record.status}: {record.data['reason']}"
    metric = record.task.reported
    chance = " (at chance)" if record.data.get("at_chance") else ""
    return f"{describe_metric(metric, record.data['metrics'][metric.name])}{chance}"


def describe_evaluation(progress: Progress) -> list[str]:
    """The reported metric as the last evaluation found it; empty before the first."""
    metric, value = progress.reported or (None, None)
    return [] if metric is None or value is None else [describe_metric(metric, value)]


class _Clock(ProgressListener):
    """Time left: the first guess is the estimate; once runs report, what they took counts."""

    def begin(self, jobs: Sequence[Job], seconds: float) -> None:
        self.count, self.finished, self.estimate = len(jobs), 0, seconds
        self.begun = time.monotonic()
        self.shares: dict[str, float] = {}  # of the runs under way
        self.numbers: dict[str, int] = {}  # the place in the sweep of a run that has begun

    def number(self, job: Job) -> str:
        return f"[{self.numbers.setdefault(job.spec.run_id, len(self.numbers) + 1)}/{self.count}]"

    def left(self) -> float:
        """Seconds left, as the share of the runs that is done tells."""
        passed, done = time.monotonic() - self.begun, self.finished + sum(self.shares.values())
        if done < 0.05:
            return max(self.estimate - passed, 0.0)
        return passed / done * (self.count - done)

    def progress(self, job: Job, progress: Progress) -> None:
        self.shares[job.spec.run_id] = progress.share

    def status(self, job: Job, progress: Progress) -> str:
        parts = [f"{self.number(job)} {job.name}", f"epoch {progress.epoch}/{progress.epochs}"]
        if progress.train_loss is not None:
            parts.append(f"loss {progress.train_loss:.3f}")
            parts += describe_evaluation(progress)
        parts += [f"{progress.images_per_second:.0f} images/s", f"{duration(self.left())} left"]
        return ", ".join(parts)

    def finish(self, job: Job, record: Record) -> None:
        self.shares.pop(job.spec.run_id, None)
        self.finished += 1

    def result(self, job: Job, record: Record) -> str:
        return (
            f"[{self.finished}/{self.count}] {job.name}: {describe_result(record)}, {duration(record.data['seconds'])}"
        )


class PlainLines(_Clock):
    """For a pipe: a line when a run starts, at most one every ten seconds while it trains, and one when it ends."""

    def begin(self, jobs: Sequence[Job], seconds: float) -> None:
        super().begin(jobs, seconds)
        self.told: dict[str, float] = {}

    def start(self, job: Job) -> None:
        logger.info(f"{self.number(job)} {job.name} ({job.spec.run_id}): starts")
        self.told[job.spec.run_id] = time.monotonic()

    def progress(self, job: Job, progress: Progress) -> None:
        super().progress(job, progress)
        if time.monotonic() - self.told.get(job.spec.run_id, 0.0) >= PLAIN_LINE_SECONDS:
            self.told[job.spec.run_id] = time.monotonic()
            logger.info(self.status(job, progress))

    def finish(self, job: Job, record: Record) -> None:
        super().finish(job, record)
        self.told.pop(job.spec.run_id, None)
        logger.info(self.result(job, record))

    def note(self, text: str) -> None:
        logger.info(text)


class LiveLine(_Clock):
    """For a terminal: a line that follows each run under way, and a line that stays for each run that ended."""

    def begin(self, jobs: Sequence[Job], seconds: float) -> None:
        super().begin(jobs, seconds)
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        console = Console(stderr=True)
        self.bars: Any = Bars(BarColumn(24), TextColumn("{task.description}", markup=False), console=console)
        self.tasks: dict[str, Any] = {}
        self.bars.start()

    def start(self, job: Job) -> None:
        self.tasks[job.spec.run_id] = self.bars.add_task(f"{self.number(job)} {job.name}: starts", total=1.0)

    def progress(self, job: Job, progress: Progress) -> None:
        super().progress(job, progress)
        if job.spec.run_id in self.tasks:
            task = self.tasks[job.spec.run_id]
            self.bars.update(task, completed=progress.share, description=visible(self.status(job, progress)))

    def finish(self, job: Job, record: Record) -> None:
        super().finish(job, record)
        if (task := self.tasks.pop(job.spec.run_id, None)) is not None:
            self.bars.remove_task(task)
        self.note(self.result(job, record))

    def note(self, text: str) -> None:
        self.bars.console.print(visible(text), markup=False, highlight=False)

    def close(self) -> None:
        """Takes the live lines off the screen."""
        if hasattr(self, "bars"):
            self.bars.stop()
