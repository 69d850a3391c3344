"""Signals that ask for an end: noted once, so that a run can save its place; the second one stops at once. No torch."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from metaformer_ablate.system.processes import exit_with_parent


class Interrupted(BaseException):
    """A signal asked for an end. Not an Exception: nothing on the way may take it for a failed run."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.advice = ""  # how to go on, a sentence


class StopRequest:
    """Whether an end was asked for, and by which signal.

    While `polled` is above 0 somebody looks at `number` often and ends in good order; else the signal raises.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.polled = 0

    def __call__(self) -> bool:
        return self.number is not None

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Around code that looks at the stop itself, and after which somebody does."""
        self.polled += 1
        try:
            yield
        finally:
            self.polled -= 1

    def _handle(self, number: int, frame: Any) -> None:
        if self.number is not None or not self.polled:  # the second time, or nobody looks
            signal.signal(number, signal.SIG_DFL)
            self.number = number
            raise Interrupted(number)
        self.number = number

    @contextmanager
    def catching(self, *numbers: int) -> Iterator[StopRequest]:
        """Handles signals, SIGINT and SIGTERM unless told otherwise; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        caught = numbers or (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._handle) for number in caught}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def catch(self, *numbers: int) -> None:
        """Handles signals for as long as the process lives."""
        for number in numbers:
            signal.signal(number, self._handle)


class PatientStop(StopRequest):
    """Asked twice is asked once: where a signal may come by two ways, and another process is there to kill this one.

    The second may come while the first is handled, between any two lines here.
    """

    def _handle(self, number: int, frame: Any) -> None:
        if self.number is not None:
            return
        self.number = number
        if not self.polled:
            raise Interrupted(number)


def isolate_children() -> None:
    """Has every Python process that this one starts leave the current folder out of its path, whatever starts it.

    A new interpreter looks there first: a file `pickle.py` beside the user would be run in place of Python's own.
    """
    os.environ["PYTHONSAFEPATH"] = "1"


def run_supervised(work: Callable[[], int]) -> int:
    """Does work in a child process and returns its exit code, or 128 + n where signal n killed it.

    Called before torch is loaded and threads run. In the child this returns, too, with the code of the work. SIGINT and
    SIGTERM are handed on; a second Ctrl-C kills.
    """
    if not hasattr(os, "fork"):
        return work()
    sys.stdout.flush()
    sys.stderr.flush()
    parent, asked = os.getpid(), (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)  # one that comes now has to find a child and a handler
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)  # Ctrl-C on a terminal comes through the parent
        signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)
        exit_with_parent(parent)
        return work()
    seen = set()

    def hand_on(number: int, frame: Any) -> None:
        os.kill(child, signal.SIGKILL if number == signal.SIGINT and number in seen else number)
        seen.add(number)

    handlers = {number: signal.signal(number, hand_on) for number in asked}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, asked)
    try:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if code < 0:
        print(f"killed by {signal.Signals(-code).name}; called again, it goes on from its checkpoint", file=sys.stderr)
        return 128 - code
    return code
