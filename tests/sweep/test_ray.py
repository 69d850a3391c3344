"""Sweeps on a real Ray cluster of two nodes on this machine: nodes that are lost, workers that die, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_WORDS, Result
from launched import plant_modules, sweep_in
from own_net import check_that_it_is_trained_by
from specs import spec_of
from sweeps import begin, contents, end, kill_all, trained_here, under_way, wait_until, went_on

from metaformer_ablate.errors import RequestError
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.sweep.launchers.base import choose
from metaformer_ablate.system.signals import StopRequest

# Without Ray


def test_ray_that_is_not_there_is_asked_for(ablate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    found = ablate("run", "pooling_size", "--launcher", "ray", "--workers", "2")
    assert found.code == 2
    assert found.err == "error: --launcher ray needs Ray: pip install 'metaformer-ablate[ray]'\n"


# On a cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            found.add_node(num_cpus=1)
            patch.setenv("RAY_ADDRESS", found.address)
            yield found
        finally:
            kill_all()
            found.shutdown()


@pytest.fixture(scope="module")
def expected(environment: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return trained_here(tmp_path_factory.mktemp("here"))


ray = pytest.mark.ray


@ray
def test_ray_still_asks_its_job_whether_it_brings_a_folder() -> None:
    """By a private method, which `_job_config` answers; without it workers look for modules in the current folder."""
    pytest.importorskip("ray")
    from ray.job_config import JobConfig

    assert callable(JobConfig._runtime_env_has_working_dir)


def launch(device: str = "cpu", workers: int | None = None, *words: str) -> Any:
    return choose("ray", specs=[spec_of(words=words)], device=device, stop=StopRequest(), workers=workers, slurm=())


def order(folder: Path, device: str = "cpu", seed: int = 0) -> RunRequest:
    spec = spec_of(seed=seed)
    return RunRequest(spec.with_execution(), str(folder), None, device, "a run", spec.run_id)


def ended(launcher: Any) -> RunResult:
    return wait_until(lambda: launcher.wait(1.0))[0]


@ray
def test_a_lost_node_s_runs_go_on_elsewhere(cluster: Any, expected: dict[str, Any], tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    sweep = begin(tmp_path, "--launcher", "ray", "--json")
    parent = node.all_processes["raylet"][0].process.pid
    lost = under_way(tmp_path, parent=parent)
    disturbed = time.time()
    cluster.remove_node(node, allow_graceful=False)
    table, _ = sweep.communicate(timeout=180)
    assert len(json.loads(table)["runs"]) == 4, "what Ray says of its nodes does not get between the results"
    said = end(sweep, tmp_path)
    assert "raylet" not in said
    assert f"{lost.name}: its node was lost; it goes on from its last checkpoint" in said
    assert contents(tmp_path / "results") == expected
    assert went_on(tmp_path, lost.run_id, disturbed)


@ray
def test_files_of_the_current_folder_are_not_executed(cluster: Any, tmp_path: Path) -> None:
    plant_modules(tmp_path)
    done = sweep_in(tmp_path, *TINY_WORDS, "--launcher", "ray", "--workers", "1")
    assert not (tmp_path / "executed.txt").exists(), (tmp_path / "executed.txt").read_text()
    assert done.returncode == 0, done.stderr


@ray
def test_ctrl_c_saves_what_is_under_way(cluster: Any, expected: dict[str, Any], tmp_path: Path) -> None:
    sweep = begin(tmp_path, "--launcher", "ray")
    held = under_way(tmp_path)
    disturbed = time.time()
    sweep.send_signal(signal.SIGINT)
    said = end(sweep, tmp_path, 130)
    assert "stopped by SIGINT\nthe same command goes on with the 4 that are left" in said
    assert list((tmp_path / "results" / ".claims").iterdir()) == []
    sweep = begin(tmp_path, "--launcher", "ray", "--json")
    # A worker that is killed costs an attempt; the run goes on from its checkpoint.
    killed = under_way(tmp_path, besides=[held.run_id])
    os.kill(killed.pid, signal.SIGKILL)
    said = end(sweep, tmp_path)
    assert f"{killed.name}: its worker was killed" in said
    assert contents(tmp_path / "results") == expected
    assert went_on(tmp_path, held.run_id, disturbed)


@ray
def test_the_capacity_is_that_of_the_nodes_that_are_there(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaformer_ablate.sweep.launchers.ray.NODES_SECONDS", 0.0)
    launcher = launch()
    try:
        assert launcher.capacity == 2
        node = cluster.add_node(num_cpus=3)
        wait_until(lambda: launcher.capacity == 5)
        cluster.remove_node(node)
        wait_until(lambda: launcher.capacity == 2)
    finally:
        launcher.close()


@ray
def test_each_run_is_told_which_gpu_is_its(cluster: Any, tmp_path: Path) -> None:
    """Made-up GPUs: the runs say that they cannot use the ones they were given."""
    node = cluster.add_node(num_cpus=4, num_gpus=2)
    cluster.wait_for_nodes()
    try:
        launcher = launch("auto", 3)
        assert (launcher.capacity, launcher._share) == (3, 0.5)
        launcher.close()
        launcher = launch("auto")
        try:
            assert (launcher.capacity, launcher._share) == (2, 1.0)
            for seed in range(2):
                launcher.submit(order(tmp_path, seed=seed))
            found = [ended(launcher) for _ in range(2)]
        finally:
            launcher.close()
        assert {end.outcome for end in found} == {"request"}
        assert sorted(end.text.split("'")[1] for end in found) == ["cuda:0", "cuda:1"]
    finally:
        cluster.remove_node(node)


@ray
def test_a_run_over_several_gpus_gets_them_to_itself(cluster: Any) -> None:
    import ray as engine

    from metaformer_ablate.sweep.launchers.ray import _devices

    node = cluster.add_node(num_cpus=4, num_gpus=3)
    cluster.wait_for_nodes()
    try:
        launcher = launch("cuda", None, "train.devices=2")
        try:
            assert (launcher.capacity, launcher._share) == (1, 2.0), "the third GPU is not half a run's"
            task = engine.remote(_devices).options(num_gpus=2)
            assert set(engine.get(task.remote("cuda")).split(",")) < {"cuda:0", "cuda:1", "cuda:2"}
        finally:
            launcher.close()
        launcher = launch("cuda", 4, "train.devices=2")
        try:
            assert launcher._share == 2.0, "two runs do not share what each has to itself"
        finally:
            launcher.close()
    finally:
        cluster.remove_node(node)
    with pytest.raises(RequestError, match=r"train\.nodes is 2; more than one node needs"):
        launch("cpu", None, "train.nodes=2")


@ray
def test_a_node_that_does_not_share_the_results_says_so(cluster: Any, tmp_path: Path) -> None:
    launcher = launch()
    try:
        launcher._marker = tmp_path / "on another machine"
        launcher.submit(order(tmp_path))
        found = ended(launcher)
        launcher._marker = None
    finally:
        launcher.close()
    assert found.outcome == "store"
    assert found.text.startswith(f"{tmp_path}: Ray's node ")
    assert found.text.endswith("does not see this folder; put --results where all nodes share it")


@ray
@pytest.mark.parametrize(
    "device, workers, text",
    [
        ("cuda:1", None, "--device is 'cuda:1'; with --launcher ray, which chooses the GPU: auto, cpu or cuda"),
        ("cuda", None, "no node of the Ray cluster has the 1 CPUs and a GPU that a run uses; see `ray status`"),
        ("cpu", 0, "--workers is 0; with --launcher ray allowed: an integer of at least 1"),
    ],
)
def test_requests_that_no_cluster_can_meet(cluster: Any, device: str, workers: int | None, text: str) -> None:
    with pytest.raises(RequestError) as found:
        launch(device, workers)
    assert str(found.value) == text


@ray
def test_a_cluster_that_does_not_answer(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(RequestError, match=r"RAY_ADDRESS is '127\.0\.0\.1:1': no Ray cluster to work with there: "):
        launch()


@ray
def test_without_a_cluster_one_is_begun_and_ended(expected: dict[str, Any], tmp_path: Path) -> None:
    sweep = begin(tmp_path, "--launcher", "ray", "--workers", "2", env={"RAY_ADDRESS": "local"})
    said = end(sweep, tmp_path)
    assert "[2/4]" in said[: said.index("[1/4] two/pool3 seed 0: ")] and "raylet" not in said, "two at once"
    assert contents(tmp_path / "results") == expected


@ray
def test_a_class_of_ones_own_is_found(cluster: Any, tmp_path: Path) -> None:
    check_that_it_is_trained_by("ray", tmp_path)
