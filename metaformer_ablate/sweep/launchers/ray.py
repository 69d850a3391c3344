"""Runs as Ray core tasks: on the cluster of $RAY_ADDRESS, else on one of this machine that ends with the sweep.

A task is never retried by Ray: the sweep begins a run again wherever there is room, and it goes on from its checkpoint.
Ray keeps the worker processes, so imports are paid once a worker.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.launchers.base import Launcher
from metaformer_ablate.sweep.launchers.local import cores
from metaformer_ablate.system.console import log_to_stderr
from metaformer_ablate.system.signals import Interrupted, StopRequest, isolate_children

if TYPE_CHECKING:
    from metaformer_ablate.runs.worker import Worker

# Between two looks at which nodes are there.
NODES_SECONDS = 2.0


# Until a cluster has to answer.
CONNECT_SECONDS = 10.0


_ALL_VISIBLE = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


def launcher(
    specs: Sequence[RunSpec], device: str, stop: StopRequest, workers: int | None = None, **other_options: Any
) -> Launcher:
    """At most `workers` runs at once; by default as many as fit the CPUs of the nodes with the threads that runs use,
    or one per GPU. More workers than GPUs share them.

    Raises RequestError where Ray or what the runs need is missing.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise RequestError("--launcher ray needs Ray: pip install 'metaformer-ablate[ray]'") from None
    if device not in ("auto", "cpu", "cuda"):
        raise RequestError(f"--device is {device!r}; with --launcher ray, which chooses the GPU: auto, cpu or cuda")
    if workers == 0:
        raise RequestError("--workers is 0; with --launcher ray allowed: an integer of at least 1")
    if (nodes := max(spec.train.nodes for spec in specs)) > 1:
        raise RequestError(f"train.nodes is {nodes}; more than one node needs --launcher slurm")
    devices = max(spec.train.devices for spec in specs)
    threads = max(spec.train.threads for spec in specs) * devices
    begun_here = not ray.is_initialized()
    if begun_here:
        _connect(workers * threads if workers else max(cores(), threads))
    try:
        return RayTasks(device, threads, devices, workers, begun_here)
    except BaseException:
        if begun_here:
            ray.shutdown()
        raise


def _connect(cpus: int) -> None:
    """To the cluster of $RAY_ADDRESS, or to a new one of this machine with so many CPUs."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning about GPUs that nobody asked for
    isolate_children()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "job_config": _job_config()}
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":
        ray.init(address=address, num_cpus=cpus, include_dashboard=False, **quiet)
        return
    try:
        host, _, port = address.rpartition(":")
        if host.startswith("ray"):
            raise ConnectionError("ray:// is Ray Client; allowed: HOST:PORT, auto, local")
        if host and port.isdigit():  # Ray itself would try for minutes, deaf to Ctrl-C
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, **quiet)
    except Exception as error:  # no connection, or what gRPC or Ray's check of versions says
        reason = str(error).strip().partition("\n")[0]
        raise RequestError(f"RAY_ADDRESS is {address!r}: no Ray cluster to work with there: {reason}") from None


def _job_config() -> Any:
    """Of a job whose workers do not look for modules in the current folder, nor where the command lies.

    Ray puts both first on their path, except for a job that says it brings its own folder.
    """
    from ray.job_config import JobConfig

    class Isolated(JobConfig):
        def _runtime_env_has_working_dir(self) -> bool:
            return True

    return Isolated()


class RayTasks:
    """Requests as tasks of a Ray cluster whose nodes come and go; each takes `threads` CPUs and, on GPUs, `devices`."""

    queues = False  # or not for long
    report: Callable[[str, Progress], None]

    def __init__(self, device: str, threads: int, devices: int, workers: int | None, begun_here: bool):
        import ray

        self._threads, self._devices, self._workers, self._begun_here = threads, devices, workers, begun_here
        self._tasks: dict[Any, RunRequest] = {}  # by the reference to what the task returns
        self._killed: set[str] = set()
        self._seen = (0.0, 0)  # when the capacity was found, and what it was
        self._marker: Path | None = None
        self._held = ExitStack()
        gpus = int(ray.cluster_resources().get("GPU", 0))
        self._device = ("cuda" if gpus else "cpu") if device == "auto" else device
        if self._device == "cuda":
            # Runs of one device may share it; one that several share has them to itself.
            self._share = 1 / math.ceil(workers / gpus) if workers and gpus and devices == 1 else float(devices)
        else:
            self._share = 0.0
        if not self.capacity:
            of_gpus = " and a GPU" if devices == 1 else f" and {devices} GPUs"
            needed = f"{threads} CPUs" + (of_gpus if self._share else "") + " that a run uses"
            raise RequestError(f"no node of the Ray cluster has the {needed}; see `ray status`")
        # max_calls: Ray would end a worker that used a GPU. All GPUs stay visible, as they are to local workers: a
        # process that has begun with one could not be given another.
        options: dict[str, Any] = {"max_retries": 0, "max_calls": 0}
        if self._share:
            options |= {"num_gpus": self._share, "runtime_env": {"env_vars": {_ALL_VISIBLE: "1"}}}
        self._train: Any = ray.remote(**options)(_train)

    @property
    def capacity(self) -> int:
        """`workers`, which may be more than there is room for: then Ray queues them, or brings nodes up."""
        import ray

        if self._workers:
            return self._workers
        looked, found = self._seen
        if not looked or time.monotonic() - looked > NODES_SECONDS:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            found = sum(self._room(node) for node in nodes)
            self._seen = (time.monotonic(), found)
        return found

    def _room(self, node: dict[str, float]) -> int:
        """Runs that fit a node at once."""
        cpus = int(node.get("CPU", 0)) // self._threads
        return min(cpus, int(node.get("GPU", 0)) // self._devices) if self._share else cpus

    def submit(self, request: RunRequest) -> None:
        if self._marker is None:
            self._begin(Path(request.results))
        request = replace(request, device=self._device)
        train = request.spec["train"]
        task = self._train.options(name=request.name, num_cpus=train["threads"] * train["devices"])
        self._tasks[task.remote(request, str(self._marker))] = request

    def _begin(self, results: Path) -> None:
        """Ray writes what becomes of its nodes to standard output, which is for results: it goes to a file, by which
        workers also see that they share the folder."""
        folder = results / ".ray"
        folder.mkdir(exist_ok=True)
        self._marker = folder / f"{uuid4().hex[:12]}.log"
        self._held.enter_context(redirect_stdout(self._held.enter_context(self._marker.open("w"))))

    def wait(self, seconds: float) -> list[RunResult]:
        import ray

        if not self._tasks:
            time.sleep(max(seconds, 0.2))  # no node is there
            return []
        done, _ = ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        return [self._outcome(task, self._tasks.pop(task).run_id) for task in done]

    def _outcome(self, task: Any, run_id: str) -> RunResult:
        import ray
        from ray import exceptions

        try:
            return ray.get(task)
        except exceptions.NodeDiedError:
            return RunResult(run_id, "stopped", "its node was lost")
        except exceptions.TaskCancelledError:
            if run_id in self._killed:
                self._killed.discard(run_id)
                return RunResult(run_id, "died", "it made no step for too long and was killed")
            return RunResult(run_id, "stopped", "it was cancelled")
        except exceptions.OutOfMemoryError:
            return RunResult(run_id, "died", "its worker was killed, for its node ran out of memory")
        except exceptions.WorkerCrashedError:
            return RunResult(run_id, "died", "its worker was killed; a machine that runs out of memory does that")
        except exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            why = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
            return RunResult(run_id, "died", f"its worker failed: {why}")

    def kill(self, run_id: str) -> None:
        for task, request in self._tasks.items():
            # Without a claim it waits for room.
            if request.run_id == run_id and Claims(Path(request.results)).current(run_id) is not None:
                self._killed.add(run_id)
                self._cancel(task, force=True)

    def _cancel(self, task: Any, force: bool) -> None:
        import ray

        ray.cancel(task, force=force, recursive=False)

    def stop(self) -> None:
        for task in self._tasks:
            self._cancel(task, force=False)

    def close(self) -> None:
        import ray

        for task in self._tasks:
            self._cancel(task, force=True)
        if self._begun_here:
            ray.shutdown()
        self._held.close()
        if self._marker is not None and not self._marker.stat().st_size:
            self._marker.unlink()


def _train(request: RunRequest, marker: str) -> RunResult:
    """In a worker of Ray. Ray cancels by what looks like SIGINT, which asks the run to save its place."""
    import ray

    log_to_stderr()
    if not Path(marker).exists():
        node = ray.util.get_node_ip_address()
        text = f"{request.results}: Ray's node {node} does not see this folder; put --results where all nodes share it"
        return RunResult(request.run_id, "store", text)
    stop = StopRequest()
    with stop.catching():
        try:
            return _worker().execute(replace(request, device=_devices(request.device)), stop)
        except Interrupted as interruption:
            return RunResult(request.run_id, "stopped", str(interruption))
        finally:
            if request.device == "cuda":
                import torch

                torch.cuda.empty_cache()  # the next run of this GPU may be another worker's


@cache
def _worker() -> Worker:
    """The worker of this process, in which Ray runs one task after another and keeps nothing for the next."""
    from metaformer_ablate.runs.worker import Worker

    return Worker()


def _devices(kind: str) -> str:
    """cpu, or the GPUs that Ray has given this task as torch counts them: cuda:1, or cuda:2,cuda:3."""
    import ray

    if kind == "cpu":
        return kind
    given = map(str, ray.get_runtime_context().get_accelerator_ids()["GPU"])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ",".join(f"cuda:{visible.split(',').index(number) if visible else number}" for number in given)
