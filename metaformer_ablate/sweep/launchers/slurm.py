"""Runs as jobs of Slurm, one run per job, in arrays of submitit; the sweep stays on the login node and watches.

What it watches are the files that jobs leave in `<results>/.slurm/` and the queue: a cluster need not have accounting.
A job that Slurm requeues goes on from its run's checkpoint by itself; one that is gone without its record is submitted
again by the sweep.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.launchers.base import Launcher
from metaformer_ablate.sweep.launchers.slurm_commands import COMMANDS, cancel, last_state, queue
from metaformer_ablate.sweep.launchers.slurm_options import GPU_KEYS, read_options
from metaformer_ablate.sweep.launchers.submitit_executor import make_executor
from metaformer_ablate.system.console import log_to_stderr
from metaformer_ablate.system.processes import process_started, this_machine
from metaformer_ablate.system.signals import Interrupted, StopRequest

logger = logging.getLogger(__name__)


# Jobs in the queue at once: what an array may hold where MaxArraySize is Slurm's default.
MOST_JOBS = 1000


# Between two looks at the queue, which is work for the cluster's controller; and when the end of a job hangs on it.
QUEUE_SECONDS, HURRY_SECONDS = 10.0, 1.0


# How long the files of a job that has left the queue may take to be seen over a network.
FILES_SECONDS = 10.0


# Before jobs are submitted again that Slurm refused for now.
RETRY_SECONDS = 30.0


# States in which a job was ended by somebody else and not by what it did.
_TAKEN = {"CANCELLED", "PREEMPTED", "NODE_FAIL", "TIMEOUT", "DEADLINE", "BOOT_FAIL", "REVOKED"}


def launcher(
    specs: Sequence[RunSpec],
    device: str,
    stop: StopRequest,
    workers: int | None = None,
    slurm: Sequence[str] = (),
    **other_options: Any,
) -> Launcher:
    """At most `workers` jobs in the queue at once, 1000 by default, with the sbatch options `slurm` (key=value).

    A job has the CPUs that its run's threads need, and a GPU where the device is cuda; auto is cuda where an option
    asks for GPUs. Raises RequestError where something is missing or an option is none of sbatch's.
    """
    try:
        import submitit  # noqa: F401
    except ModuleNotFoundError:
        raise RequestError("--launcher slurm needs submitit: pip install 'metaformer-ablate[slurm]'") from None
    if missing := [name for name in COMMANDS if shutil.which(name) is None]:
        raise RequestError(f"--launcher slurm: there is no {', '.join(missing)} here; run it on a login node of Slurm")
    if device not in ("auto", "cpu", "cuda"):
        raise RequestError(f"--device is {device!r}; with --launcher slurm, which chooses the GPU: auto, cpu or cuda")
    if workers == 0:
        raise RequestError("--workers is 0; with --launcher slurm allowed: an integer of at least 1")
    options = read_options(slurm)
    asks_for_gpu = any(key in options for key in GPU_KEYS)
    if device == "auto":
        device = "cuda" if asks_for_gpu else "cpu"
    nodes, devices = (max(getattr(spec.train, name) for spec in specs) for name in ("nodes", "devices"))
    if device == "cuda" and not asks_for_gpu:
        options["gpus_per_node"] = devices
    if nodes * devices > 1:
        for spec in specs:
            check_hardware(spec, device)
        # The job's one process is on its first node, holds the claim and starts the ranks: with srun on several nodes.
        options |= {"nodes": nodes, "ntasks_per_node": devices, "use_srun": False}
    options.setdefault("cpus_per_task", max(spec.train.threads for spec in specs))
    return SlurmJobs(device, options, min(workers or MOST_JOBS, MOST_JOBS))


class SlurmJobs:
    """Requests as jobs in Slurm's queue."""

    queues = True
    report: Callable[[str, Progress], None]

    def __init__(self, device: str, options: dict[str, Any], capacity: int):
        self.capacity = capacity
        self._device, self._options = device, options
        self._executor: Any = None
        self._new: list[RunRequest] = []  # not submitted yet
        self._jobs: dict[str, _Job] = {}  # by Slurm's id: 12 or 12_3
        self._killed: set[str] = set()
        self._stopping = False
        self._looked, self._not_before = 0.0, 0.0
        logging.getLogger("submitit").setLevel(logging.CRITICAL)  # errors are told once, by what is raised

    def submit(self, request: RunRequest) -> None:
        self._new.append(replace(request, device=self._device))

    def wait(self, seconds: float) -> list[RunResult]:
        if self._new and not self._stopping and time.monotonic() >= self._not_before:
            self._submit_array()
        until = time.monotonic() + seconds
        while not (ended := self._ended()) and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
        return ended

    def _submit_array(self) -> None:
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        folder = Path(self._new[0].results) / ".slurm"
        if self._executor is None:
            self._executor = make_executor(folder, self._options, MOST_JOBS)
        try:
            jobs = self._executor.map_array(_train, self._new)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].removeprefix("sbatch: error: ")
            if not self._jobs:
                raise RequestError(f"sbatch refuses the jobs: {reason}") from None
            logger.info(f"sbatch refuses {len(self._new)} jobs for now: {reason}")
            self._not_before = time.monotonic() + RETRY_SECONDS
            return
        jobs = [job.task(0) if job.num_tasks > 1 else job for job in jobs]  # the other tasks are the ranks
        self._jobs |= {job.job_id: _Job(job, request) for job, request in zip(jobs, self._new, strict=True)}
        logger.info(f"submitted job {jobs[0].job_id.partition('_')[0]} with {len(jobs)} runs; logs in {folder}")
        self._new = []
        self._looked = time.monotonic()

    def _ended(self) -> list[RunResult]:
        """The requests that are over, by the files they have left and by the queue."""
        if self._stopping and self._new:
            self._new, unsent = [], self._new
            return [RunResult(request.run_id, "stopped", "it had not been submitted") for request in unsent]
        if not self._jobs:
            return []
        folder = self._executor.folder
        names = set(os.listdir(folder))  # fresh over a network, as asking for one file is not
        ended = []
        for job in list(self._jobs.values()):
            if job.result is None and job.paths.result_pickle.name in names:
                job.result = job.read_result()
            # One that was told to stop may have been requeued by Slurm: then it goes on by itself.
            if job.result is not None and (job.result.outcome != "stopped" or self._stopping):
                ended.append(self._let_go(job, job.result))
        hurry = self._stopping or any(job.result or job.gone for job in self._jobs.values())
        if time.monotonic() - self._looked >= (HURRY_SECONDS if hurry else QUEUE_SECONDS):
            self._looked = time.monotonic()
            ended += self._look_at_queue()
        return ended

    def _look_at_queue(self) -> list[RunResult]:
        states = queue()
        if states is None:  # the controller does not answer: nobody can say
            return []
        ended = []
        for job_id, job in list(self._jobs.items()):
            job.state = states.get(job_id)
            if job.state is not None:
                job.gone = None
                if job.state == "PENDING" and job.result is not None:  # requeued
                    job.paths.result_pickle.unlink(missing_ok=True)
                    job.result = None
                continue
            job.gone = job.gone or time.monotonic()
            if job.result is not None:
                ended.append(self._let_go(job, job.result))
            elif self._stopping or time.monotonic() - job.gone >= FILES_SECONDS:
                ended.append(self._let_go(job, self._vanished(job)))
        return ended

    def _vanished(self, job: _Job) -> RunResult:
        """How a request ended whose job left the queue without a word."""
        run_id, job_id = job.request.run_id, job.slurm.job_id
        if run_id in self._killed:
            return RunResult(run_id, "died", "it made no step for too long and was killed")
        state = last_state(job_id)
        log = (
            f"log {job.paths.stderr}"
            if job.paths.stderr.exists()
            else "it left no log: does its node share the folder?"
        )
        text = f"Slurm's job {job_id} ended as {state} ({log})"
        return RunResult(run_id, "stopped" if self._stopping or state in _TAKEN else "died", text)

    def _let_go(self, job: _Job, ended: RunResult) -> RunResult:
        self._jobs.pop(job.slurm.job_id, None)
        self._killed.discard(job.request.run_id)
        paths = job.paths
        files = [paths.submitted_pickle, paths.result_pickle, _owner_file(paths.folder, job.slurm.job_id)]
        for path in files if ended.outcome != "recorded" else [*files, paths.stderr, paths.stdout]:
            path.unlink(missing_ok=True)
        return ended

    def kill(self, run_id: str) -> None:
        running = [job for job in self._jobs.values() if job.request.run_id == run_id and job.state == "RUNNING"]
        if running:
            self._killed.add(run_id)
            cancel([job.slurm.job_id for job in running])

    def stop(self) -> None:
        self._stopping = True
        if self._jobs:
            logger.info(f"cancelling {len(self._jobs)} jobs of Slurm; those that train save their place")
            cancel(list(self._jobs))

    def close(self) -> None:
        cancel(list(self._jobs))


class _Job:
    """A job in the queue, and what is known of it."""

    def __init__(self, slurm: Any, request: RunRequest):
        self.slurm, self.request = slurm, request
        self.paths = slurm.paths
        self.state: str | None = "PENDING"
        self.gone: float | None = None  # since when it is not in the queue
        self.result: RunResult | None = None

    def read_result(self) -> RunResult:
        try:
            ended = self.slurm.result()
        except Exception as error:  # whatever happened in the job
            last = str(error).strip().splitlines()
            trace = [line for line in last if line and not line.startswith(("-", " ", "You can check"))]
            why = trace[-1] if trace else type(error).__name__
            return RunResult(
                self.request.run_id, "died", f"Slurm's job {self.slurm.job_id} failed: {why} (log {self.paths.stderr})"
            )
        if ended.outcome == "stopped":
            why = "its time limit" if ended.text in ("SIGUSR1", "SIGUSR2") else ended.text
            return replace(ended, text=f"Slurm's job {self.slurm.job_id} was stopped by {why}")
        return ended


def _owner_file(folder: Path, job_id: str) -> Path:
    return folder / f"{job_id}_owner.json"


def _train(request: RunRequest) -> RunResult:
    """In a job."""
    from submitit import JobEnvironment

    log_to_stderr()
    # USR2 comes before the time limit ends, and USR1 from whoever has set submitit so.
    with StopRequest().catching(signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2) as stop:
        try:
            job = JobEnvironment()
            request = replace(
                request,
                dead_claim=_former_owner(request, _owner_file(job.paths.folder, job.job_id)) or request.dead_claim,
            )

            from metaformer_ablate.runs.worker import execute

            return execute(request, stop)
        except Interrupted as interruption:
            return RunResult(request.run_id, "stopped", str(interruption))


def _former_owner(request: RunRequest, path: Path) -> str | None:
    """The token of the claim that this job held before it was requeued: nobody else knows that its process is gone,
    for it may have been on another node. Notes the process of this time in the file."""
    owner = [this_machine(), os.getpid(), process_started(os.getpid())]
    former = json.loads(path.read_text()) if path.exists() else None
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(owner))
    temporary.replace(path)
    top = Claims(Path(request.results)).current(request.run_id)
    if top is None or [top.machine, top.pid, top.started] != former:
        return None
    return top.token
