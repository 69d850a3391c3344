"""What a person sees while a sweep trains: a live view on a terminal, plain lines on a pipe. Standard error only."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, TextIO

from metaformer_ablate.errors import visible
from metaformer_ablate.sweep.jobs import Job, images_of, work_of
from metaformer_ablate.sweep.scheduler import ProgressListener
from metaformer_ablate.system.console import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from metaformer_ablate.records.claims import Progress
    from metaformer_ablate.records.record import Record
    from metaformer_ablate.tasks.base import Metric

logger = logging.getLogger(__name__)


PLAIN_LINE_SECONDS = 10.0


STEPS_MEASURED = 10  # steps of a run before its speed counts: the first ones take longer


BAR = "\N{BOX DRAWINGS HEAVY HORIZONTAL}\N{BOX DRAWINGS LIGHT HORIZONTAL}"  # what is done, what is left


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


class SweepClock(ProgressListener):
    """Where a sweep is and how long the rest takes, by what its runs have measured.

    Nothing is told of the time left before a run has made steps, unless records of the same plan tell it: `seconds` of
    `begin`, for all jobs one after another.
    """

    def begin(self, jobs: Sequence[Job], seconds: float | None = None) -> None:
        self.count, self.finished, self.failed, self.estimate = len(jobs), 0, 0, seconds
        self.begun = time.monotonic()
        self.work = work_of(jobs)
        self.done = 0.0  # work of the runs that have ended
        self.shares: dict[str, float] = {}  # of the runs under way
        self.speeds: dict[str, float] = {}  # work per second of each run that has made steps
        self.numbers: dict[str, int] = {}  # the place in the sweep of a run that has begun

    def number(self, job: Job) -> str:
        return f"[{self.numbers.setdefault(job.spec.run_id, len(self.numbers) + 1)}/{self.count}]"

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.begun

    @property
    def share(self) -> float:
        """How much of the work is done, 0 to 1."""
        under_way = sum(self.work[run_id] * share for run_id, share in self.shares.items())
        return (self.done + under_way) / sum(self.work.values())

    def left(self) -> float | None:
        """Seconds left; None before anything is measured."""
        if not self.speeds:
            return None if self.estimate is None else max(self.estimate / self.at_once - self.elapsed, 0.0)
        usual = median(self.speeds.values())
        ends = [
            (1 - share) * self.work[run_id] / self.speeds.get(run_id, usual) for run_id, share in self.shares.items()
        ]
        rest = (1 - self.share) * sum(self.work.values())
        return max([rest / usual / max(1, min(self.at_once, self.count - self.finished)), *ends])

    def progress(self, job: Job, progress: Progress) -> None:
        run_id, train = job.spec.run_id, job.spec.train
        self.shares[run_id] = progress.share
        images = images_of(job.spec)
        if progress.share * images >= STEPS_MEASURED * train.batch_size and progress.images_per_second > 0:
            self.speeds[run_id] = self.work[run_id] * progress.images_per_second / images

    def status(self, job: Job, progress: Progress) -> list[str]:
        """What there is to say of a run under way, the most telling first."""
        parts = [f"{self.number(job)} {job.name}", f"epoch {progress.epoch}/{progress.epochs}"]
        if progress.train_loss is not None:
            parts.append(f"loss {progress.train_loss:.3f}")
            parts += describe_evaluation(progress)
        return [*parts, f"{progress.images_per_second:.0f} images/s"]

    def finish(self, job: Job, record: Record) -> None:
        run_id = job.spec.run_id
        self.shares.pop(run_id, None)
        self.done += self.work[run_id]
        self.finished += 1
        self.failed += record.status == "failed"
        if record.status == "ok" and record.data["seconds"]:
            self.speeds[run_id] = self.work[run_id] / record.data["seconds"]

    def result(self, job: Job, record: Record) -> str:
        return f"{self.number(job)} {job.name}: {describe_result(record)}, {duration(record.data['seconds'])}"


class PlainLines(SweepClock):
    """For a pipe: a line when a run starts, at most one every ten seconds while it trains, and one when it ends."""

    def begin(self, jobs: Sequence[Job], seconds: float | None = None) -> None:
        super().begin(jobs, seconds)
        self.told: dict[str, float] = {}

    def start(self, job: Job) -> None:
        logger.info(f"{self.number(job)} {job.name} ({job.spec.run_id}): starts")
        self.told[job.spec.run_id] = time.monotonic()

    def progress(self, job: Job, progress: Progress) -> None:
        super().progress(job, progress)
        if time.monotonic() - self.told.get(job.spec.run_id, 0.0) >= PLAIN_LINE_SECONDS:
            self.told[job.spec.run_id] = time.monotonic()
            left = self.left()
            logger.info(", ".join([*self.status(job, progress), *([] if left is None else [f"{duration(left)} left"])]))

    def finish(self, job: Job, record: Record) -> None:
        super().finish(job, record)
        self.told.pop(job.spec.run_id, None)
        logger.info(self.result(job, record))

    def note(self, text: str) -> None:
        logger.info(text)


class LiveLine(SweepClock):
    """For a terminal: a bar for the sweep, a line below it for each run under way, and above it a line that stays for
    each run that has ended. The bar counts the seconds, also while a worker does nothing yet but load what it needs."""

    def begin(self, jobs: Sequence[Job], seconds: float | None = None) -> None:
        super().begin(jobs, seconds)
        from rich.console import Console
        from rich.live import Live

        self.lines: dict[str, list[str]] = {}  # of the runs under way
        self.console = Console(stderr=True)
        self.live = Live(get_renderable=self._screen, console=self.console, transient=True, refresh_per_second=4)
        self.live.start()

    def start(self, job: Job) -> None:
        number = self.number(job)
        fresh = len(self.numbers) <= self.at_once  # the first runs of the workers wait for seconds of imports
        self.lines[job.spec.run_id] = [f"{number} {job.name}: starts" + (", loading PyTorch" if fresh else "")]

    def progress(self, job: Job, progress: Progress) -> None:
        super().progress(job, progress)
        if job.spec.run_id in self.lines:
            self.lines[job.spec.run_id] = self.status(job, progress)

    def finish(self, job: Job, record: Record) -> None:
        super().finish(job, record)
        self.lines.pop(job.spec.run_id, None)
        self.note(self.result(job, record))

    def note(self, text: str) -> None:
        self.console.print(visible(text), markup=False, highlight=False)

    def close(self) -> None:
        """Takes the live lines off the screen."""
        if hasattr(self, "live"):
            self.live.stop()

    def _screen(self) -> RenderableType:
        from rich.text import Text

        width, most = self.console.width, max(1, self.console.height - 3)
        runs = list(self.lines.values())
        shown = [f"  {fitted(parts, width - 2)}" for parts in (runs if len(runs) <= most else runs[: most - 1])]
        more = [f"  and {len(runs) - len(shown)} more"] if len(shown) < len(runs) else []
        lines = [self._bar(width), *shown, *more]
        return Text("\n".join(map(visible, lines)), no_wrap=True, overflow="ellipsis")

    def _bar(self, width: int) -> str:
        left = self.left()
        parts = [
            f"{self.finished} of {self.count} runs" + (f" ({self.failed} failed)" if self.failed else ""),
            f"{timedelta(seconds=int(self.elapsed))} elapsed",
            "time left not known yet" if left is None else f"about {duration(left)} left",
        ]
        text = ", ".join(parts)
        room = max(8, min(30, width - len(text) - 1))
        full = min(room, int(room * self.share))
        done, rest = tuple(BAR if self.console.encoding.lower().startswith("utf") else "#-")
        return f"{done * full}{rest * (room - full)} {text}"


def fitted(parts: Sequence[str], width: int) -> str:
    """As many of the parts as find room, from the first on."""
    text = parts[0]
    for part in parts[1:]:
        if len(text) + 2 + len(part) > width:
            break
        text += f", {part}"
    return text


def listener_for(stream: TextIO) -> LiveLine | PlainLines:
    """What shows a sweep on standard error: a live view on a terminal that can take lines back, else plain lines."""
    return LiveLine() if stream.isatty() and os.environ.get("TERM") != "dumb" else PlainLines()
