"""Sweeps through a real Slurm of two nodes on this machine: jobs requeued, cancelled, killed, out of time; Ctrl-C."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, TINY_WORDS, Result
from own_net import check_that_it_is_trained_by
from specs import spec_of
from sweeps import begin, contents, end, kill_all, trained_here, under_way, wait_until, went_on

from metaformer_ablate.records.claims import ClaimOwner, Claims
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest
from metaformer_ablate.sweep.launchers import slurm as launcher_module
from metaformer_ablate.sweep.launchers.slurm import MOST_JOBS, _former_owner
from metaformer_ablate.sweep.launchers.slurm_commands import queue
from metaformer_ablate.sweep.launchers.slurm_options import read_options
from metaformer_ablate.sweep.launchers.submitit_executor import make_executor

# Without Slurm


def test_what_is_not_there_is_asked_for(ablate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("run", "pooling_size", "--launcher", "slurm", "--workers", "2")
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.slurm.COMMANDS", ("sbatch-of-no-machine",))
    if importlib.util.find_spec("submitit"):
        found = ablate(*words)
        assert found.code == 2
        text = "--launcher slurm: there is no sbatch-of-no-machine here; run it on a login node of Slurm"
        assert found.err.endswith(f"error: {text}\n")
    monkeypatch.setitem(sys.modules, "submitit", None)
    found = ablate(*words)
    assert found.code == 2
    assert found.err == "error: --launcher slurm needs submitit: pip install 'metaformer-ablate[slurm]'\n"


def test_options_of_slurm_are_for_slurm(ablate: Callable[..., Result]) -> None:
    found = ablate("run", "pooling_size", "--slurm", "partition=gpu")
    assert found.code == 2
    assert found.err.endswith("error: --slurm partition=gpu is for --launcher slurm; here it is local\n")


def test_a_requeued_job_takes_over_what_it_held_on_another_node(tmp_path: Path) -> None:
    spec = spec_of()
    order = RunRequest(spec.with_execution(), str(tmp_path), None, "cpu", "a run", spec.run_id)
    notes = tmp_path / "7_owner.json"
    assert _former_owner(order, notes) is None
    held = Claims(tmp_path).take(spec.run_id)
    assert held is not None
    path = held.path
    held._end.set()
    held._thread.join()
    # The same claim and note, as a process of another node would have made them: it cannot be seen to be gone.
    for file, change in ((path, lambda tree: tree | {"machine": "far"}), (notes, lambda pair: ["far", *pair[1:]])):
        file.write_text(json.dumps(change(json.loads(file.read_text()))))
    assert Claims(tmp_path).take(spec.run_id) is None
    token = _former_owner(order, notes)
    assert token == held.token
    assert _former_owner(order, notes) is None, "it is this process's turn now, and the claim is not its"
    taken = Claims(tmp_path).take(spec.run_id, dead=token)
    assert taken is not None
    taken.release()


def test_a_job_does_not_run_what_lies_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command is called as a job would, where a file has the name of what it loads."""
    pytest.importorskip("submitit")
    (tmp_path / "srun").write_text("#!/bin/sh\n")  # submitit asks whether there is one
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    words = shlex.split(make_executor(tmp_path / "jobs", {}, MOST_JOBS)._submitit_command_str)
    (tmp_path / "submitit.py").write_text("open('executed.txt', 'w')")
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0, "there is no job to do"
    assert not (tmp_path / "executed.txt").exists()


def test_max_hours_are_for_launchers_without_a_queue(ablate: Callable[..., Result]) -> None:
    found = ablate("run", "pooling_size", "--launcher", "slurm", "--max-hours", "1.5")
    assert found.sentence == (
        "--max-hours: Slurm's queue says when runs begin; to end by then, give --slurm deadline=now+90minutes"
    )


# On a cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Slurm on this machine, and the environment in which its commands find it."""
    pytest.importorskip("submitit")
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
    if os.geteuid() or not all(shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "munged")):
        pytest.skip("needs root, and slurm-wlm and munge of Debian")
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # a short name, for sockets
    script = str(REPOSITORY / "tests" / "helpers" / "slurm.sh")
    try:
        subprocess.run([script, "start", str(folder)], check=True, timeout=100)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
            yield
    finally:
        kill_all()
        subprocess.run([script, "stop", str(folder)], check=True, timeout=100)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def expected(environment: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return trained_here(tmp_path_factory.mktemp("here"))


slurm = pytest.mark.slurm


def jobs() -> dict[str, list[str]]:
    """Of each job in the queue: its state, node, time limit and comment."""
    words = ["squeue", "--noheader", "--array", "--format=%i|%T|%N|%l|%k"]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split("|")[0]: line.split("|")[1:] for line in lines}


def job_of(holder: ClaimOwner) -> str:
    """The job whose process holds a claim."""
    environment = Path(f"/proc/{holder.pid}/environ").read_bytes().split(b"\0")
    found = dict(line.decode().partition("=")[::2] for line in environment if line)
    if "SLURM_ARRAY_JOB_ID" in found:
        return f"{found['SLURM_ARRAY_JOB_ID']}_{found['SLURM_ARRAY_TASK_ID']}"
    return found["SLURM_JOB_ID"]


def tell(*words: str) -> None:
    subprocess.run(words, check=True, timeout=60)


@slurm
def test_ctrl_c_takes_the_jobs_back_and_both_nodes_finish_them(
    cluster: None, expected: dict[str, Any], tmp_path: Path
) -> None:
    options = ["--launcher", "slurm", "--slurm", "time=7", "--slurm", "comment=of a test"]
    options += ["--slurm", "deadline=now+90minutes"]
    sweep = begin(tmp_path, *options)
    rest = ["7:00", "of a test"]
    everywhere = [["PENDING", "", *rest], ["PENDING", "", *rest], ["RUNNING", "n1", *rest], ["RUNNING", "n2", *rest]]
    wait_until(lambda: sorted(jobs().values()) == everywhere)
    held = under_way(tmp_path)
    disturbed = time.time()
    sweep.send_signal(signal.SIGINT)
    said = end(sweep, tmp_path, 130)
    assert "cancelling 4 jobs of Slurm; those that train save their place" in said
    wait_until(lambda: not jobs())
    assert list((tmp_path / "results" / ".claims").iterdir()) == []
    end(begin(tmp_path, *options, "--json"), tmp_path)
    assert contents(tmp_path / "results") == expected
    assert went_on(tmp_path, held.run_id, disturbed)
    left = [path.name for path in (tmp_path / "results" / ".slurm").iterdir()]
    assert not [name for name in left if name.endswith((".pkl", ".json"))]


@slurm
def test_jobs_that_are_disturbed_go_on(cluster: None, expected: dict[str, Any], tmp_path: Path) -> None:
    """One is requeued, one killed, then one cancelled and one told that its time is nearly over."""
    sweep = begin(tmp_path, "--launcher", "slurm")
    found: list[tuple[ClaimOwner, str, float]] = []
    for disturb in (
        lambda holder, job: tell("scontrol", "requeue", job),
        lambda holder, job: os.kill(holder.pid, signal.SIGKILL),
        lambda holder, job: tell("scancel", job),
        lambda holder, job: tell("scancel", "--signal=USR2", job),
    ):
        holder = under_way(tmp_path, besides=[holder.run_id for holder, _, _ in found])
        found.append((holder, job_of(holder), time.time()))
        disturb(holder, found[-1][1])
    said = end(sweep, tmp_path)
    assert contents(tmp_path / "results") == expected
    assert all(went_on(tmp_path, holder.run_id, when) for holder, _, when in found)
    requeued, killed, cancelled, late = (f"{holder.name}: Slurm's job {job} " for holder, job, _ in found)
    assert killed + f"ended as FAILED (log {tmp_path}/results/.slurm/" in said
    assert cancelled + "was stopped by SIGTERM; it goes on from its last checkpoint" in said
    assert late + "was stopped by its time limit; it goes on from its last checkpoint" in said
    assert requeued not in said, "Slurm does it, not the sweep"
    assert "with 4 runs; logs in" in said


@slurm
@pytest.mark.parametrize(
    "word, text",
    [
        (
            "partitoin=main",
            "--slurm: unknown option 'partitoin' (did you mean 'partition'?); allowed: the long options",
        ),
        ("partition", "--slurm 'partition': allowed: key=value, for example partition=gpu"),
        ("nodes=2", "--slurm nodes: the launcher sets it: a job is one task that trains one run"),
        ("mem=", "--slurm mem is ''; allowed: one value"),
        ("array_parallelism=many", "--slurm array_parallelism is 'many'; allowed: an integer of at least 1"),
        ("partition=gpu", "sbatch refuses the jobs: Batch job submission failed: Invalid partition name specified"),
    ],
)
def test_options_that_slurm_does_not_take(cluster: None, ablate: Callable[..., Result], word: str, text: str) -> None:
    found = ablate("run", "pooling_size", "--launcher", "slurm", "--workers", "1", "--slurm", word)
    assert found.code == 2
    assert found.err.splitlines()[-1].startswith(f"error: {text}")
    wait_until(lambda: not jobs())


@slurm
def test_options_reach_sbatch(cluster: None, tmp_path: Path) -> None:
    words = [
        "time=1-00:00:00",
        "mem-per-cpu=1G",
        "nice=5",
        "requeue=true",
        "setup=module load cuda",
        "contiguous=false",
    ]
    options = read_options(words)
    text = make_executor(tmp_path, options, MOST_JOBS)._make_submission_file_text("a command", "1")
    flags = {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert {"--time=1-00:00:00", "--mem-per-cpu=1G", "--nice=5", "--requeue"} <= flags
    assert "module load cuda" in text.splitlines()
    assert "wckey" not in text and "contiguous" not in text
    without = make_executor(tmp_path, {}, MOST_JOBS)._make_submission_file_text("a command", "1")
    assert "--time" not in without, "the partition's limit, not submitit's five minutes"


@slurm
@pytest.mark.parametrize(
    "device, words, found",
    [("auto", [], ("cpu", None)), ("auto", ["gres=gpu:1"], ("cuda", None)), ("cuda", [], ("cuda", 1))],
)
def test_gpus_are_asked_for(cluster: None, device: str, words: list[str], found: tuple[str, Any]) -> None:
    made: Any = launcher_module.launcher([spec_of()], device, None, None, words)  # type: ignore[arg-type]
    assert (made._device, made._options.get("gpus_per_node")) == found
    assert made._options["cpus_per_task"] == 1


@slurm
def test_a_controller_that_does_not_answer_ends_nothing(cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queue() == {}
    monkeypatch.setattr(subprocess, "run", lambda *a, **b: subprocess.CompletedProcess(a, 1, "", "no"))
    assert queue() is None


@slurm
def test_a_run_is_shared_by_two_nodes(cluster: None, ablate: Callable[..., Result], tmp_path: Path) -> None:
    """The nodes' names mean nothing to this host's resolver, so the ranks are told where they meet."""
    (tmp_path / "one.yaml").write_text("baseline: only\nrows:\n  only: {set: {}}\n")
    words = ["run", "one.yaml", *TINY_WORDS, "--json"]
    spread = [*words, "--results", "spread", "--launcher", "slurm", "train.nodes=2"]
    found = ablate(*spread, env={"MASTER_ADDR": "127.0.0.1", "ABLATE_WORKERS": None})
    assert found.code == 0, found.err
    alone = ablate(*words, "--results", "alone")
    runs = [result.json["runs"] for result in (found, alone)]
    assert runs[0][0]["run_id"] == runs[1][0]["run_id"]
    records = [Store(tmp_path / name).find(runs[0][0]["run_id"]) for name in ("spread", "alone")]
    assert records[0].data["device"] == f"2 x {records[1].data['device']}"
    losses = [record.history()[-1]["train_loss"] for record in records]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@slurm
def test_a_class_of_ones_own_is_found(cluster: None, tmp_path: Path) -> None:
    check_that_it_is_trained_by("slurm", tmp_path)
