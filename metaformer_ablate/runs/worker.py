"""A request to a record: claims the run, trains it, lets go of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.records.record import StoreError
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.constraints import check, check_launch
from metaformer_ablate.runs.options import ClaimLost, Handling
from metaformer_ablate.runs.outcome import Trained
from metaformer_ablate.runs.ranks import Ranks
from metaformer_ablate.runs.request import Ended, Order
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system import provenance
from metaformer_ablate.system.devices import choose_device, choose_devices
from metaformer_ablate.system.signals import Interrupted, Stop
from metaformer_ablate.tracking.tracker import follow

_runners: dict[tuple[str, str | None, str], Runner] = {}


def execute(order: Order, stop: Stop, report: Callable[[Progress], None] = lambda progress: None) -> Ended:
    """Carries an order out: claims the run, trains it unless its record is there by now, and lets go of it."""
    try:
        spec = RunSpec.model_validate(order.spec)
        key = (order.results, order.data, order.device)
        if key not in _runners:
            _runners.clear()  # the images of another sweep
            folder = DataFolder.choose(order.data)
            first = order.device.split(",")[0]  # the others are for runs that several share
            _runners[key] = Runner(Store(Path(order.results)), folder, choose_device(first))
        runner = _runners[key]
        try:
            claim = Claims(runner.store.path).take(spec.run_id, order.name, order.dead)
        except OSError as error:
            raise StoreError.of(runner.store.path, f"the claim on run {spec.run_id}", error) from error
        if claim is None:
            return Ended(spec.run_id, "busy")
        try:
            runner.store.problems.clear()
            record = runner.store.read(spec.run_id)
            if record is None or order.replaces == record.checksum:
                fingerprint = runner.folder.fingerprint(spec.data.name, spec.data.reader)
                with follow(order.wandb, spec, runner.store, fingerprint, provenance.versions()) as tracker:
                    handling = Handling(
                        report,
                        checkpoint_seconds=order.checkpoint_seconds,
                        keep_checkpoints=order.keep_checkpoints,
                        stop=stop,
                        claim=claim,
                        tracker=tracker,
                    )
                    if spec.train.world > 1:
                        ended = _run_on_ranks(runner, order, spec, handling)
                        record = runner.store.read(spec.run_id) if ended.outcome == "recorded" else None
                        if tracker is not None and record is not None:
                            for line in record.history():  # rank 0 has no logger
                                tracker.epoch(line)
                            tracker.end(record)
                        return ended
                    record = runner.run(spec, handling)
                    if tracker is not None:
                        tracker.end(record)
            return Ended(spec.run_id, "recorded")
        finally:
            claim.release()
    except Interrupted as interruption:
        return Ended(order.run_id, "stopped", str(interruption))
    except ClaimLost:
        return Ended(order.run_id, "busy")
    except RequestError as error:
        return Ended(order.run_id, "request", str(error))
    except StoreError as error:
        return Ended(order.run_id, "store", str(error))


def _run_on_ranks(runner: Runner, order: Order, spec: RunSpec, handling: Handling) -> Ended:
    check_launch(spec.train)
    check(spec, runner.device.type)
    if spec.train.nodes == 1:
        choose_devices(order.device, spec.train.devices)
    runner.folder.require(spec.data.name, spec.data.reader)
    runner.clear(spec)
    ranks = Ranks(order, spec.train, runner.watch(spec, handling).find_checkpoint())
    with handling.stop.polling():
        ranks.follow(handling.stop, handling.tell)
    if ranks.ended is not None:
        return ranks.ended
    if (death := ranks.death()) is not None:
        return Ended(spec.run_id, "died", death)
    assert ranks.failure is not None
    Trained(**ranks.failure, predictions=None, checkpoint=None).write(runner.store, spec)
    return Ended(spec.run_id, "recorded")
