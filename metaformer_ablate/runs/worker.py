"""A request to a record: claims the run, trains it, lets go of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Claim, Claims, Progress
from metaformer_ablate.records.record import Record, StoreError
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.constraints import check_hardware, check_launch
from metaformer_ablate.runs.options import ClaimLost, RunOptions
from metaformer_ablate.runs.outcome import RunOutcome, failed_record
from metaformer_ablate.runs.ranks import RankProcesses
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.runs.source import SourceFailed, with_source
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system import provenance
from metaformer_ablate.system.devices import choose_device, choose_devices
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tracking.tracking import Tracking


class Worker:
    """Carries out requests one after another, in one process; keeps the data of the last one for the next."""

    def __init__(self, tracking: Tracking | None = None):
        self.tracking = tracking or Tracking()
        self._key: tuple[str, str | None, str] | None = None
        self._runner: Runner | None = None

    def execute(
        self, request: RunRequest, stop: StopRequest, report: Callable[[Progress], None] = lambda progress: None
    ) -> RunResult:
        """Carries a request out: claims the run, trains it unless its record is there by now, and lets go of it."""
        try:
            return self._execute(request, stop, report)
        except Interrupted as interruption:
            return RunResult(request.run_id, "stopped", str(interruption))
        except ClaimLost:
            return RunResult(request.run_id, "busy")
        except RequestError as error:
            return RunResult(request.run_id, "request", str(error))
        except StoreError as error:
            return RunResult(request.run_id, "store", str(error))

    def _execute(self, request: RunRequest, stop: StopRequest, report: Callable[[Progress], None]) -> RunResult:
        spec = RunSpec.model_validate(request.spec)
        runner = self._runner_for(request)
        try:
            claim = Claims(runner.store.path).take(spec.run_id, request.name, request.dead_claim)
        except OSError as error:
            raise StoreError.of(runner.store.path, f"the claim on run {spec.run_id}", error) from error
        if claim is None:
            return RunResult(spec.run_id, "busy")
        try:
            runner.store.problems.clear()
            record = runner.store.read(spec.run_id)
            if record is not None and request.replaces != record.checksum:
                return RunResult(spec.run_id, "recorded")
            if spec.source is not None:
                alive = partial(_report_source, claim, report)
                try:
                    request = with_source(request, lambda other: self._execute(other, stop, alive), stop)
                except SourceFailed as error:
                    data = failed_record(spec, str(error))
                    runner.clear(spec)
                    RunOutcome(data, [], None, str(error), None).write(runner.store, spec)
                    return RunResult(spec.run_id, "recorded")
                spec, runner = RunSpec.model_validate(request.spec), self._runner_for(request)
            options = RunOptions(
                report,
                checkpoint_seconds=request.checkpoint_seconds,
                keep_checkpoints=request.keep_checkpoints,
                stop=stop,
                claim=claim,
            )
            ended = self._train(runner, request, spec, options)
            record = runner.store.read(spec.run_id)
            if ended.outcome == "stopped" or (record is not None and record.status == "failed"):
                claim.leave_note()
            return ended
        except Interrupted:
            claim.leave_note()
            raise
        finally:
            claim.release()

    def _runner_for(self, request: RunRequest) -> Runner:
        """The runner of the request before, if it is of the same sweep; or one whose data is yet to be opened."""
        key = (request.results, request.data, request.device)
        if self._runner is None or self._key != key:
            self._runner = None  # lets go of the images of another sweep
            folder = DataFolder.choose(request.data)
            first = request.device.split(",")[0]  # the others are for runs that several share
            self._runner = Runner(Store(Path(request.results)), folder, choose_device(first))
            self._key = key
        return self._runner

    def _train(self, runner: Runner, request: RunRequest, spec: RunSpec, options: RunOptions) -> RunResult:
        """Trains a run that is claimed, here or on ranks, and tells W&B where it is asked to."""
        fingerprint = runner.folder.fingerprint(spec.data.name, spec.data.reader)
        with self.tracking.run(request.wandb, spec, runner.store, fingerprint, provenance.versions()) as tracker:
            options = replace(options, tracker=tracker)
            if spec.train.world == 1:
                record: Record | None = runner.run(spec, options)
                ended = RunResult(spec.run_id, "recorded")
            else:
                ended = _run_on_ranks(runner, request, spec, options)
                record = runner.store.read(spec.run_id) if ended.outcome == "recorded" else None
                if tracker is not None and record is not None:
                    for line in record.history():  # rank 0 has no logger
                        tracker.epoch(line)
            if tracker is not None and record is not None:
                tracker.end(record)
        return ended


def _report_source(claim: Claim, report: Callable[[Progress], None], progress: Progress) -> None:
    """A sign of life of a run whose source is being trained: nothing of the run itself is done by that.

    The source may have a source too: until that is done half of the share is its, so that the share only rises.
    """
    of_source = (1 + progress.share) / 2 if progress.share else progress.source_share / 2
    claim.progress = replace(progress, share=0.0, source_share=of_source)
    report(claim.progress)


def execute(
    request: RunRequest, stop: StopRequest, report: Callable[[Progress], None] = lambda progress: None
) -> RunResult:
    """Carries out one request, by a `Worker` of its own."""
    return Worker().execute(request, stop, report)


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
