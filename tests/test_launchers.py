"""What a sweep makes of the orders that a launcher could not finish, and of those that wait for their turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from specs import made_up, spec_of

from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import Ended, Order
from metaformer_ablate.sweep.jobs import Job
from metaformer_ablate.sweep.launchers.local import launcher as local_launcher
from metaformer_ablate.sweep.scheduler import Limits, Listener, Sweep
from metaformer_ablate.system.signals import Stop


class Notes(Listener):
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

    def __init__(self, store: Store, *attempts: tuple[str, float | None]):
        self.store, self.attempts = store, list(attempts)
        self.under_way: list[Order] = []
        self.killed: list[str] = []

    def submit(self, order: Order) -> None:
        self.under_way.append(order)

    def wait(self, seconds: float) -> list[Ended]:
        order = self.under_way.pop()
        outcome, share = self.attempts.pop(0)
        if share is not None:
            self.report(order.run_id, Progress(0, 1, share, None, None, 1.0))
        if outcome == "recorded":
            made_up(self.store, spec_of())
        return [Ended(order.run_id, outcome, "its node was lost")]

    def kill(self, run_id: str) -> None:
        self.killed.append(run_id)

    def stop(self) -> None: ...

    def close(self) -> None: ...


def sweep_of(launcher: Any, store: Store, listener: Listener | None = None, **limits: Any) -> Sweep:
    def order(job: Job) -> Order:
        return Order(job.spec.with_execution(), str(store.path), None, "cpu", job.name, job.spec.run_id)

    return Sweep([Job(spec_of(), ("two/pool3",))], order, launcher, store, listener or Notes(), Limits(**limits))


def test_a_run_that_gets_on_may_be_stopped_any_number_of_times(tmp_path: Path) -> None:
    store, notes = Store(tmp_path), Notes()
    launcher = Scripted(store, *(("stopped", share) for share in (0.1, 0.2, 0.3, 0.4, 0.5)), ("recorded", None))
    assert sweep_of(launcher, store, notes).run() is None
    assert [record.status for record in store] == ["ok"]
    assert notes.notes == ["two/pool3 seed 0: its node was lost; it goes on from its last checkpoint"] * 5


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
    sweep._look()
    assert notes.begun == []
    claim = Claims(tmp_path).take(spec_of().run_id)
    assert claim is not None
    now[0] += 1.0
    launcher.killed.clear()  # a launcher with a queue kills nothing that is in it
    sweep._look()
    assert notes.begun == [spec_of().run_id]
    now[0] += 50.0
    sweep._look()
    assert launcher.killed == []
    now[0] += 20.0
    sweep._look()
    assert launcher.killed == [spec_of().run_id]
    claim.release()


def test_workers_on_one_gpu_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are asked for, by default one; each compiles with its share of the cores."""
    made: list[tuple[str, int]] = []
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.local.devices_of", lambda option: ["cuda:0"])
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.local.cores", lambda: 16)
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.local._Worker", lambda *given: made.append(given))
    specs = [spec_of(seed=seed) for seed in range(6)]
    assert local_launcher(specs, "auto", Stop(), workers=4).capacity == 4
    assert made == [("cuda:0", 4)] * 4
    assert local_launcher(specs, "auto", Stop()).capacity == 1


def test_one_listing_tells_of_all_claims(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    held = [claims.take(f"{number:012x}") for number in range(3)]
    assert held[1] is not None
    above = claims.take(f"{1:012x}", dead=held[1].token)
    assert above is not None
    assert {run_id: holder.token for run_id, holder in claims.tops().items()} == {
        claim.run_id: claim.token for claim in (held[0], above, held[2]) if claim
    }
    for claim in (held[0], above, held[2]):
        assert claim is not None
        claim.release()
    assert claims.tops() == {}
