"""Who trains what: claims on runs in a results folder that any number of processes on any machines share. No torch.

A claim on a run is a file `<results>/.claims/<run_id>.<generation>`, made by a hard link, which on any file system
succeeds for one process only. Its owner rewrites it every few seconds with a higher `beat` and with how far the run
is, which is also what `ablate status` and the live view read. Nobody's clock is compared with anybody else's: an
owner is taken for dead when its process is gone (same machine), or when an observer has seen no new heartbeat
for LEASE_SECONDS of its own monotonic clock. A dead claim is not removed but outnumbered: the next owner links the
next generation, so two observers of one death cannot both get the run, and an owner that was only stalled sees that
it was outnumbered.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from metaformer_ablate.errors import visible
from metaformer_ablate.records.claim_shape import LONGEST_TEXT, ClaimShape
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.system.processes import is_gone, of_this_process
from metaformer_ablate.tasks.base import Metric
from metaformer_ablate.tasks.registry import DEFAULT, TASKS, get_task

HEARTBEAT_SECONDS = 2.0  # seconds between two beats of an owner
LEASE_SECONDS = 60.0  # without a heartbeat, by the observer's clock: an owner elsewhere is then taken for dead
_NAME = re.compile(r"([0-9a-f]{12})\.(0|[1-9][0-9]{0,17})")


class Clock(Protocol):
    """What an observer's time passes by: the module `time`, or that of a simulation (benchmarks/simulation.py)."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


@dataclass(frozen=True)
class Progress:
    """How far a run is. `metrics` are of the last evaluation; None before the first."""

    epoch: int  # finished epochs
    epochs: int
    share: float  # of the whole run, 0 to 1
    train_loss: float | None
    metrics: dict[str, float] | None
    images_per_second: float
    task: str = DEFAULT
    source_share: float = 0.0  # while the run it starts from is trained, how far that is: 0 to 1, and it only rises

    @property
    def reported(self) -> tuple[Metric, float | None] | None:
        """The metric that the task reports, and its value so far; None where this code does not have the task."""
        if self.task not in TASKS:
            return None
        metric = get_task(self.task).reported
        return metric, (self.metrics or {}).get(metric.name)

    def to_json(self) -> dict[str, Any]:
        """As claims and `ablate status` have it; the reported metric also stands under its name, as it always did."""
        reported = {self.reported[0].name: self.reported[1]} if self.reported is not None else {}
        return {**asdict(self), **reported}


@dataclass(frozen=True)
class ClaimOwner:
    """What a claim says of its owner. `progress` is None before the first step."""

    run_id: str
    generation: int
    token: str
    beat: int
    host: str
    machine: str
    pid: int
    parent: int
    started: str
    name: str = ""
    progress: Progress | None = None

    def is_gone(self) -> bool:
        """Whether the owner was a process of this machine that is there no more. False says nothing."""
        return is_gone(self.machine, self.pid, self.started)


class Claim:
    """A claim that this process holds; beats until released. `lost` once another process has outnumbered it."""

    def __init__(self, claims: Claims, run_id: str, generation: int, token: str, name: str):
        self.claims, self.run_id, self.generation, self.token = claims, run_id, generation, token
        self.name = visible(name)[:LONGEST_TEXT]  # what the shape of a claim refuses would be nobody's claim
        self.progress: Progress | None = None
        self.lost = False
        self._beat = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"claim {run_id}", daemon=True)

    @property
    def path(self) -> Path:
        return self.claims.folder / f"{self.run_id}.{self.generation}"

    def _text(self) -> str:
        progress = self.progress and self.progress.to_json()
        of_claim = {"token": self.token, "beat": self._beat, "name": self.name, "progress": progress}
        return json.dumps(of_this_process() | of_claim)

    def _link(self) -> bool:
        temporary = self.claims.folder / f".{self.token}"
        temporary.write_text(self._text())
        try:
            os.link(temporary, self.path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            try:
                with self.path.open("x") as stream:
                    stream.write(self._text())
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        self._thread.start()
        return True

    def _keep(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            try:
                self.heartbeat()
            except OSError:
                continue  # the folder may come back; whoever takes the run over meanwhile outnumbers this claim

    def heartbeat(self) -> None:
        """Says that the owner lives and how far it is."""
        if self.holds():
            self._beat += 1
            temporary = self.claims.folder / f".{self.token}"
            temporary.write_text(self._text())
            temporary.replace(self.path)

    def holds(self) -> bool:
        """Whether the run is still this process's to finish."""
        if not self.lost:
            top = self.claims.current(self.run_id)
            self.lost = top is None or top.token != self.token
        return not self.lost

    def leave_note(self) -> None:
        """Leaves word of a run that stops here or fails: what it was called and how far it came."""
        with suppress(OSError):
            (note := self.claims.note_of(self.run_id)).parent.mkdir(exist_ok=True)
            note.write_text(self._text())

    def release(self) -> None:
        self._end.set()
        self._thread.join()
        self.claims.forget(self.run_id, self.generation)


def _reported_of_older(progress: dict[str, Any]) -> dict[str, float] | None:
    """The metrics in a claim of older code, which has the reported one of classification alone, under its name."""
    name = get_task().reported.name
    value = progress.get(name)
    return {name: float(value)} if isinstance(value, (int, float)) and abs(value) <= 100 else None


class Claims:
    """The claims in a results folder, as one observer sees them."""

    def __init__(self, results: Path, lease: float | None = None, clock: Clock = time):
        self.folder = results / ".claims"
        self.lease = LEASE_SECONDS if lease is None else lease
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}  # token: (beat, when it was first seen)

    def _generations(self, run_id: str | None = None) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        try:
            names = os.listdir(self.folder)
        except OSError:
            return {}
        for name in names:
            match = _NAME.fullmatch(name)
            if match and run_id in (None, match[1]):
                found.setdefault(match[1], []).append(int(match[2]))
        return found

    def note_of(self, run_id: str) -> Path:
        """Where a run that was stopped or failed has left word; whoever takes it up next removes that."""
        return self.folder.parent / ".notes" / run_id

    def last_owner(self, run_id: str) -> ClaimOwner | None:
        """Who had a run last, alive or not; None where nothing tells."""
        return self.current(run_id) or self._read(run_id, -1)

    def _read(self, run_id: str, generation: int) -> ClaimOwner | None:
        """The claim of a generation; -1 stands for the word that was left."""
        try:
            tree = read_json(self.note_of(run_id) if generation < 0 else self.folder / f"{run_id}.{generation}")
            found = ClaimShape.model_validate(tree).model_dump()
            if (progress := found.pop("progress")) is not None:
                progress["metrics"] = progress["metrics"] or _reported_of_older(tree["progress"])
            return ClaimOwner(run_id, generation, **found, progress=progress and Progress(**progress))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # not readable: a beat that never changes, so it dies by the lease
            return ClaimOwner(run_id, generation, f"{run_id}.{generation}", 0, "an unknown host", "", 0, 0, "")

    def current(self, run_id: str) -> ClaimOwner | None:
        """The claim that counts for a run: the one of the highest generation; None where there is none."""
        for generation in sorted(self._generations(run_id).get(run_id, []), reverse=True):
            if (holder := self._read(run_id, generation)) is not None:
                return holder
        return None

    def all_current(self) -> dict[str, ClaimOwner]:
        """`top` of every run that has one, by id, for one listing of the folder."""
        tops = {run_id: self._read(run_id, max(numbers)) for run_id, numbers in sorted(self._generations().items())}
        return {run_id: holder for run_id, holder in tops.items() if holder}

    def held(self) -> dict[str, ClaimOwner]:
        """The runs that somebody alive seems to train, by id."""
        return {run_id: holder for run_id, holder in self.all_current().items() if not self.is_dead(holder)}

    def is_dead(self, holder: ClaimOwner) -> bool:
        """Whether an owner is gone: its process, or no heartbeat for LEASE_SECONDS between calls of this observer."""
        if holder.is_gone():
            return True
        now = self._clock.monotonic()
        beat, since = self._seen.get(holder.token, (None, now))
        if beat != holder.beat:
            since = now
            self._seen[holder.token] = (holder.beat, now)
        return now - since > self.lease

    def take(self, run_id: str, name: str = "", dead: str | None = None) -> Claim | None:
        """Claims a run, also over a dead owner; None where somebody alive has it.

        `dead` is the token of an owner that another observer has found dead: it has watched for longer.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        top = self.current(run_id)
        if top is not None and top.token != dead and not self.is_dead(top):
            return None
        generation = 0 if top is None else top.generation + 1
        claim = Claim(self, run_id, generation, uuid4().hex, name)
        if not claim._link():
            return None
        if top is not None:
            self.forget(run_id, top.generation)
        self.note_of(run_id).unlink(missing_ok=True)
        return claim

    def forget(self, run_id: str, generation: int) -> None:
        """Removes the claims on a run up to a generation, lower ones first."""
        for number in sorted(self._generations(run_id).get(run_id, [])):
            if number <= generation:
                with suppress(OSError):  # what is no file stays, outnumbered
                    (self.folder / f"{run_id}.{number}").unlink(missing_ok=True)
