"""What a person sees of a sweep: the time left from what was measured, lines that fit, one numbering."""

from __future__ import annotations

import io

import pytest
from conftest import Terminal
from rich.console import Console
from specs import spec_of

from metaformer_ablate.records.claims import Progress
from metaformer_ablate.sweep.jobs import Job, images_of
from metaformer_ablate.sweep.progress import LiveLine, PlainLines, fitted, listener_for


class Ended:
    """A record as far as progress reads it."""

    def __init__(self, status: str = "ok", seconds: float = 0.0):
        self.status, self.data = status, {"seconds": seconds, "reason": "it failed", "metrics": {"top1": 50.0}}
        self.data["at_chance"] = False

    @property
    def task(self):  # type: ignore[no-untyped-def]
        from metaformer_ablate.tasks.registry import get_task

        return get_task()


def jobs(number: int) -> list[Job]:
    return [Job(spec_of(seed=seed), (f"pooling_size/row{seed}",)) for seed in range(number)]


def at(share: float, rate: float) -> Progress:
    return Progress(1, 12, share, 0.5, {"top1": 81.0}, rate)


def test_no_time_is_told_before_something_was_measured() -> None:
    four, lines = jobs(4), PlainLines()
    lines.begin(four)
    lines.start(four[0])
    assert lines.left() is None
    images = images_of(four[0].spec)
    one_step = four[0].spec.train.batch_size / images
    lines.progress(four[0], at(one_step, 0.001))  # the first step of a run takes long: it would tell of days
    assert lines.left() is None
    lines.progress(four[0], at(0.5, images / 100))  # a run takes 100 seconds
    assert lines.left() == pytest.approx(350)
    lines.at_once = 2
    lines.start(four[1])
    lines.progress(four[1], at(0.25, images / 100))
    assert lines.left() == pytest.approx((400 - 75) / 2)
    lines.finish(four[0], Ended(seconds=100.0))  # type: ignore[arg-type]
    assert lines.left() == pytest.approx(275 / 2)
    assert lines.share == pytest.approx(1.25 / 4)


def test_the_last_run_is_waited_for() -> None:
    two, lines = jobs(2), PlainLines()
    lines.at_once = 2
    lines.begin(two)
    images = images_of(two[0].spec)
    lines.progress(two[0], at(0.99, images / 100))
    lines.progress(two[1], at(0.1, images / 100))
    assert lines.left() == pytest.approx(90), "not half of what is left of both"


def test_records_of_the_same_plan_tell_the_time_at_once() -> None:
    lines = PlainLines()
    lines.at_once = 2
    lines.begin(jobs(4), seconds=400.0)
    assert lines.left() == pytest.approx(200, abs=1)


@pytest.mark.parametrize("width", [80, 120])
def test_the_view_fits_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    many, bar = jobs(40), LiveLine()
    bar.at_once = 30
    bar.begin(many)
    try:
        for job in many[:30]:
            bar.start(job)
        for job in many[:2]:
            bar.progress(job, at(0.5, 1234.0))
        bar.finish(many[0], Ended("failed"))  # type: ignore[arg-type]
        lines = str(bar._screen()).splitlines()
    finally:
        bar.close()
    assert max(map(len, lines)) <= width and len(lines) < Console().height
    assert "1 of 40 runs (1 failed), 0:00:0" in lines[0] and "left" in lines[0]
    told = "  [2/40] pooling_size/row1 seed 1, epoch 1/12, loss 0.500, top-1 81.00%"
    assert lines[1] == told + (", 1234 images/s" if width == 120 else "")
    assert lines[2] == "  [3/40] pooling_size/row2 seed 2: starts, loading PyTorch"
    assert lines[-1].startswith("  and ") and lines[-1].endswith(" more")


def test_a_terminal_that_cannot_take_lines_back_gets_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(listener_for(Terminal()), LiveLine) and isinstance(listener_for(io.StringIO()), PlainLines)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(listener_for(Terminal()), PlainLines)


def test_a_run_keeps_its_number(caplog: pytest.LogCaptureFixture) -> None:
    three, lines = jobs(3), PlainLines()
    lines.begin(three)
    for job in three[:2]:
        lines.start(job)
    assert lines.result(three[1], Ended(seconds=1.0)).startswith("[2/3] pooling_size/row1 seed 1: ")  # type: ignore[arg-type]
    assert lines.number(three[2]) == "[3/3]" and lines.number(three[0]) == "[1/3]"


def test_parts_that_find_no_room_are_left_out() -> None:
    assert fitted(["one", "two", "three"], 9) == "one, two"
    assert fitted(["a name that is longer"], 5) == "a name that is longer"
