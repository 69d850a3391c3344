"""What a sweep makes of the orders that a launcher could not finish, and of those that wait for their turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_WORDS
from launched import plant_modules, sweep_in
from own_components import CLASSES, PARTS
from own_components import WORDS as PARTS_WORDS
from specs import fake_record, spec_of

from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.sweep.jobs import Job
from metaformer_ablate.sweep.launchers.local import WorkerPool
from metaformer_ablate.sweep.launchers.local import launcher as local_launcher
from metaformer_ablate.sweep.scheduler import Limits, ProgressListener, Sweep
from metaformer_ablate.system.signals import StopRequest


class Notes(ProgressListener):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun: list[str] = []

    def start(self, job: Job) -> None:
        self.begun.append(job.spec.run_id)

    def note(self, text: str) -> None:
        self.notes.append(text)


class Scripted:
    """Ends each attempt of a run as it is told, after a progress that the sweep hears of."""

    capacity, queues = 1, False
    report: Callable[[str, Progress], None]

    def __init__(self, store: Store, *attempts: tuple[str, float | tuple[float, float] | None]):
        self.store, self.attempts = store, list(attempts)
        self.under_way: list[RunRequest] = []
        self.killed: list[str] = []

    def submit(self, order: RunRequest) -> None:
        self.under_way.append(order)

    def wait(self, seconds: float) -> list[RunResult]:
        order = self.under_way.pop()
        outcome, share = self.attempts.pop(0)
        if share is not None:
            own, of_source = share if isinstance(share, tuple) else (share, 0.0)
            self.report(order.run_id, Progress(0, 1, own, None, None, 1.0, source_share=of_source))
        if outcome == "recorded":
            fake_record(self.store, spec_of())
        return [RunResult(order.run_id, outcome, "its node was lost")]

    def kill(self, run_id: str) -> None:
        self.killed.append(run_id)

    def stop(self) -> None: ...

    def close(self) -> None: ...


def sweep_of(launcher: Any, store: Store, listener: ProgressListener | None = None, **limits: Any) -> Sweep:
    def order(job: Job) -> RunRequest:
        return RunRequest(job.spec.with_execution(), str(store.path), None, "cpu", job.name, job.spec.run_id)

    return Sweep([Job(spec_of(), ("two/pool3",))], order, launcher, store, listener or Notes(), Limits(**limits))


def test_a_run_that_gets_on_may_be_stopped_any_number_of_times(tmp_path: Path) -> None:
    store, notes = Store(tmp_path), Notes()
    launcher = Scripted(store, *(("stopped", share) for share in (0.1, 0.2, 0.3, 0.4, 0.5)), ("recorded", None))
    assert sweep_of(launcher, store, notes).run() is None
    assert [record.status for record in store] == ["ok"]
    assert notes.notes == ["two/pool3 seed 0: its node was lost; it goes on from its last checkpoint"] * 5


def test_a_run_whose_source_gets_on_may_be_stopped_any_number_of_times(tmp_path: Path) -> None:
    """300 epochs of pre-training under a time limit: nothing of the run itself is done for days."""
    store, notes = Store(tmp_path), Notes()
    of_source = [("stopped", (0.0, share)) for share in (0.2, 0.4, 0.6, 0.8)]
    launcher = Scripted(store, *of_source, ("stopped", 0.1), ("stopped", 0.2), ("recorded", None))
    assert sweep_of(launcher, store, notes).run() is None
    assert [record.status for record in store] == ["ok"] and len(notes.notes) == 6


@pytest.mark.parametrize("shares", [(None, None, None), (0.2, 0.2, 0.1, 0.2)])
def test_a_run_that_is_always_stopped_before_it_gets_on_is_given_up(
    shares: tuple[float | None, ...], tmp_path: Path
) -> None:
    store = Store(tmp_path)
    launcher = Scripted(store, *(("stopped", share) for share in shares))
    sweep_of(launcher, store).run()
    (record,) = store
    assert record.status == "failed"
    assert record.data["reason"].startswith("given up after 3 attempts: its node was lost")
    assert launcher.attempts == []


def test_time_in_a_queue_is_no_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has waited for longer than a stall may last is not killed when it begins, but when it then hangs."""
    now = [1000.0]
    monkeypatch.setattr("metaformer_ablate.sweep.scheduler.time.monotonic", lambda: now[0])
    launcher, notes = Scripted(Store(tmp_path)), Notes()
    launcher.queues = True
    sweep = sweep_of(launcher, Store(tmp_path), notes, stall_seconds=60.0)
    sweep._submit(sweep.waiting.popleft())
    now[0] += 1000.0
    sweep._poll_claims()
    assert notes.begun == []
    claim = Claims(tmp_path).take(spec_of().run_id)
    assert claim is not None
    now[0] += 1.0
    launcher.killed.clear()  # a launcher with a queue kills nothing that is in it
    sweep._poll_claims()
    assert notes.begun == [spec_of().run_id]
    now[0] += 50.0
    sweep._poll_claims()
    assert launcher.killed == []
    now[0] += 20.0
    sweep._poll_claims()
    assert launcher.killed == [spec_of().run_id]
    claim.release()


def test_workers_on_one_gpu_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are asked for, by default one; each compiles with its share of the cores."""
    made: list[tuple[str, int]] = []
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.local.devices_of", lambda option: ["cuda:0"])
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.local.cores", lambda: 16)
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.local.WorkerProcess", lambda *given: made.append(given))
    specs = [spec_of(seed=seed) for seed in range(6)]
    assert local_launcher(specs, "auto", StopRequest(), workers=4).capacity == 4
    assert made == [("cuda:0", 4)] * 4
    assert local_launcher(specs, "auto", StopRequest()).capacity == 1


def test_submitit_still_tells_what_its_executor_takes() -> None:
    """By a private method: where this fails, `submitit_parameters` has to learn the names in another way."""
    pytest.importorskip("submitit")
    from metaformer_ablate.sweep.launchers.submitit_executor import submitit_parameters

    used = {"time", "wckey", "job_name", "array_parallelism", "setup", "teardown", "srun_args", "signal_delay_s"}
    assert used <= submitit_parameters(), "submitit has changed SlurmExecutor._valid_parameters"


def test_one_listing_tells_of_all_claims(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    held = [claims.take(f"{number:012x}") for number in range(3)]
    assert held[1] is not None
    above = claims.take(f"{1:012x}", dead=held[1].token)
    assert above is not None
    assert {run_id: holder.token for run_id, holder in claims.all_current().items()} == {
        claim.run_id: claim.token for claim in (held[0], above, held[2]) if claim
    }
    for claim in (held[0], above, held[2]):
        assert claim is not None
        claim.release()
    assert claims.all_current() == {}


# Worker processes

# Run by each interpreter at its start, before anything of ours.
AT_START = """
import os, sys
if "spawn_main" in " ".join(sys.orig_argv):
    with open("starts.txt", "a") as stream:
        stream.write("x")
    if os.path.getsize("starts.txt") <= {starts}:
        {what}
"""
KILLED = "os.kill(os.getpid(), 9)"
CANNOT_IMPORT = "sys.modules['pytorch_lightning'] = None"


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    at_start = AT_START.format(starts=2, what=KILLED)
    done = sweep_in(tmp_path, *TINY_WORDS, "--workers", "1", at_start=at_start)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("its worker was killed by SIGKILL while it started") == 2
    assert "it is tried again" in done.stderr and "Traceback" not in done.stderr
    assert [record.status for record in Store(tmp_path / "results")] == ["ok"] * 4
    assert (tmp_path / "starts.txt").read_text() == "xxx", "one worker trains all that is left"


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (KILLED, "was killed by SIGKILL while it started; a machine that runs out of memory does that"),
        (
            CANNOT_IMPORT,
            "could not start: ModuleNotFoundError: import of pytorch_lightning halted",
        ),
    ],
)
@pytest.mark.slow
def test_workers_that_never_start_end_the_sweep_with_a_sentence(what: str, why: str, tmp_path: Path) -> None:
    done = sweep_in(tmp_path, *TINY_WORDS, "--workers", "2", at_start=AT_START.format(starts=1000, what=what))
    assert done.returncode == 1, done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("no worker process starts")]
    assert sentence.startswith(f"no worker process starts, after 3 attempts each: the last one {why}")
    assert sentence.endswith(": 4 runs are left; the same command goes on with them")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "starts.txt").read_text() == "x" * 6
    assert list(Store(tmp_path / "results")) == [], "no run is to blame"


@pytest.fixture
def worker() -> Iterator[WorkerPool]:
    workers = WorkerPool(["cpu"])
    yield workers
    workers.close()


def outcome(workers: WorkerPool) -> RunResult:
    while not (ended := workers.wait(60.0)):
        pass
    return ended[0]


@pytest.mark.slow
def test_a_worker_is_told_apart_from_what_it_trained_before(worker: WorkerPool, tmp_path: Path) -> None:
    """One that was stopped trains the next order to its end; one that was killed while idle costs no run an attempt."""
    store, spec = Store(tmp_path), spec_of({"train.epochs": 400}, words=TINY_WORDS)
    order = RunRequest(spec.with_execution(), str(tmp_path), None, "cpu", "a run", spec.run_id)
    worker.submit(order)
    while (holder := Claims(tmp_path).current(spec.run_id)) is None or holder.progress is None:
        assert worker.wait(0.1) == []
    worker.stop()
    assert outcome(worker) == RunResult(spec.run_id, "stopped", "SIGTERM")
    short = spec_of(words=TINY_WORDS)
    order = RunRequest(short.with_execution(), str(tmp_path), None, "cpu", "a run", short.run_id)
    worker.submit(order)
    assert outcome(worker) == RunResult(short.run_id, "recorded", "")
    os.kill(holder.pid, 9)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    store.set_aside(short.run_id)
    worker.submit(order)
    assert outcome(worker) == RunResult(short.run_id, "recorded", "")


def test_files_of_the_current_folder_are_not_executed(tmp_path: Path) -> None:
    """One's own parts are found there all the same."""
    plant_modules(tmp_path)
    (tmp_path / "my_parts.py").write_text(CLASSES)
    (tmp_path / "parts.yaml").write_text(PARTS)
    words = [*PARTS_WORDS, "model.token_mixer=[pooling, pooling, pooling, roll]", "--workers", "1"]
    done = sweep_in(tmp_path, *words)
    assert not (tmp_path / "executed.txt").exists(), (tmp_path / "executed.txt").read_text()
    assert done.returncode == 0, done.stderr
    assert [record.status for record in Store(tmp_path / "results")] == ["ok"] * 4
