"""A request to a record: claims the run, trains it, lets go of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.records.record import StoreError
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.constraints import check_hardware, check_launch
from metaformer_ablate.runs.options import ClaimLost, RunOptions
from metaformer_ablate.runs.outcome import RunOutcome
from metaformer_ablate.runs.ranks import RankProcesses
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system import provenance
from metaformer_ablate.system.devices import choose_device, choose_devices
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tracking.tracking import Tracking

_runners: dict[tuple[str, str | None, str], Runner] = {}


def execute(
    request: RunRequest,
    stop: StopRequest,
    report: Callable[[Progress], None] = lambda progress: None,
    tracking: Tracking | None = None,
) -> RunResult:
    """Carries a request out: claims the run, trains it unless its record is there by now, and lets go of it.

    `tracking` is that of the process, where it carries out several requests.
    """
    try:
        spec = RunSpec.model_validate(request.spec)
        key = (request.results, request.data, request.device)
        if key not in _runners:
            _runners.clear()  # the images of another sweep
            folder = DataFolder.choose(request.data)
            first = request.device.split(",")[0]  # the others are for runs that several share
            _runners[key] = Runner(Store(Path(request.results)), folder, choose_device(first))
        runner = _runners[key]
        try:
            claim = Claims(runner.store.path).take(spec.run_id, request.name, request.dead_claim)
        except OSError as error:
            raise StoreError.of(runner.store.path, f"the claim on run {spec.run_id}", error) from error
        if claim is None:
            return RunResult(spec.run_id, "busy")
        try:
            runner.store.problems.clear()
            record = runner.store.read(spec.run_id)
            if record is None or request.replaces == record.checksum:
                fingerprint = runner.folder.fingerprint(spec.data.name, spec.data.reader)
                with (tracking or Tracking()).run(
                    request.wandb, spec, runner.store, fingerprint, provenance.versions()
                ) as tracker:
                    options = RunOptions(
                        report,
                        checkpoint_seconds=request.checkpoint_seconds,
                        keep_checkpoints=request.keep_checkpoints,
                        stop=stop,
                        claim=claim,
                        tracker=tracker,
                    )
                    if spec.train.world > 1:
                        ended = _run_on_ranks(runner, request, spec, options)
                        record = runner.store.read(spec.run_id) if ended.outcome == "recorded" else None
                        if tracker is not None and record is not None:
                            for line in record.history():  # rank 0 has no logger
                                tracker.epoch(line)
                            tracker.end(record)
                        return ended
                    record = runner.run(spec, options)
                    if tracker is not None:
                        tracker.end(record)
            return RunResult(spec.run_id, "recorded")
        finally:
            claim.release()
    except Interrupted as interruption:
        return RunResult(request.run_id, "stopped", str(interruption))
    except ClaimLost:
        return RunResult(request.run_id, "busy")
    except RequestError as error:
        return RunResult(request.run_id, "request", str(error))
    except StoreError as error:
        return RunResult(request.run_id, "store", str(error))


def _run_on_ranks(runner: Runner, request: RunRequest, spec: RunSpec, options: RunOptions) -> RunResult:
    check_launch(spec.train)
    check_hardware(spec, runner.device.type)
    if spec.train.nodes == 1:
        choose_devices(request.device, spec.train.devices)
    runner.folder.require(spec.data.name, spec.data.reader)
    runner.clear(spec)
    ranks = RankProcesses(request, spec.train, runner.callback(spec, options).find_checkpoint())
    with options.stop.polling():
        ranks.wait(options.stop, options.tell)
    if ranks.ended is not None:
        return ranks.ended
    if (death := ranks.crash_reason()) is not None:
        return RunResult(spec.run_id, "died", death)
    assert ranks.failure is not None
    RunOutcome(**ranks.failure, predictions=None, checkpoint=None).write(runner.store, spec)
    return RunResult(spec.run_id, "recorded")
