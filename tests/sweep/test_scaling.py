"""The plan past one machine: the real scheduler in simulated time against closed forms, and the formulas."""

from __future__ import annotations

import io
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from pathlib import Path

import pytest
import torch
from scipy.optimize import minimize_scalar
from specs import build_net, spec_of

from benchmarks import gpu, scaling
from benchmarks.simulation import Cluster, Outcome, Simulated, Time, Timing, hold, simulate
from benchmarks.training import Case, Setting
from metaformer_ablate.cost.cost import count
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import ClaimOwner, Claims
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.sweep.scheduler import Limits

SEEDS = 5
ROWS = ("pool3", "pool5", "pool7", "pool9")
NAMES = [f"pooling_size/{row} seed {seed}" for seed in range(SEEDS) for row in ROWS]  # as they are to begin


def sweep(
    cluster: Cluster, timing: Callable[[RunRequest], Timing], folder: Path, *words: str, **more: object
) -> Outcome:
    """Pooling sizes with five seeds."""
    return simulate([plan("pooling_size", "digits", words)], range(SEEDS), cluster, timing, folder, **more)  # type: ignore[arg-type]


def durations(number: int) -> dict[str, float]:
    """Made-up hours of each run."""
    chance = random.Random(number)
    return {name: 3600.0 * chance.choice([1, 2, 3, 5, 7, 11, 13]) for name in NAMES}


def list_schedule(seconds: list[float], machines: int) -> float:
    """When the last of some jobs ends that are begun in turn, each on the machine that is free first."""
    free = [0.0] * machines
    heapify(free)
    for job in seconds:
        heappush(free, heappop(free) + job)
    return max(free)


# ---------------------------------------------------------------------------------------------------------------------
# The scheduler


@pytest.mark.parametrize("queues", [False, True], ids=["workers", "queue"])
@pytest.mark.parametrize("gpus", [1, 2, 3, 7, 64])
def test_the_scheduler_is_list_scheduling(gpus: int, queues: bool, tmp_path: Path) -> None:
    hours = durations(gpus)
    outcome = sweep(Cluster(gpus, queues=queues), lambda order: Timing(hours[order.name]), tmp_path)
    each = list(hours.values())
    assert outcome.makespan == list_schedule(each, gpus)
    lower = max(sum(each) / gpus, max(each))
    assert lower <= outcome.makespan <= (2 - 1 / gpus) * lower, "Graham's bound"
    if gpus == 1:
        assert outcome.makespan == sum(each)
        assert outcome.utilisation == 1.0
    if gpus >= len(NAMES):
        assert outcome.makespan == max(each)
    assert outcome.launcher.spent == {"work": sum(each), "saving": 0, "starting": 0}


@pytest.mark.parametrize("gpus", [1, 3])
def test_runs_begin_in_turn_and_each_is_trained_once(gpus: int, tmp_path: Path) -> None:
    hours = durations(0)
    outcome = sweep(Cluster(gpus), lambda order: Timing(hours[order.name]), tmp_path)
    assert [job.name for _, job in outcome.begun] == NAMES, "seed by seed, the rows in their order"
    assert len(outcome.ended) == len(NAMES) == len(list(Store(tmp_path)))
    assert not list((tmp_path / ".claims").iterdir())
    begun = {job.spec.run_id: at for at, job in outcome.begun}
    changes = sorted([*((at, 1) for at in begun.values()), *((at, -1) for at in outcome.ended.values())])
    at_once = [sum(change for _, change in changes[: i + 1]) for i in range(len(changes))]
    assert max(at_once) == gpus


@pytest.mark.parametrize(
    ("cluster", "words", "at_once"),
    [
        (Cluster(8), ("train.devices=8",), 1),
        (Cluster(20), ("train.devices=4",), 5),
        (Cluster(20), ("train.devices=8",), 2),  # four GPUs are on a node of their own
        (Cluster(40), ("train.devices=8", "train.nodes=2"), 2),
        (Cluster(32, queues=True), ("train.devices=8", "train.nodes=2"), 2),
    ],
)
def test_a_run_takes_all_its_gpus(cluster: Cluster, words: tuple[str, ...], at_once: int, tmp_path: Path) -> None:
    outcome = sweep(cluster, lambda order: Timing(100.0), tmp_path, *words)
    assert outcome.makespan == 100 * math.ceil(len(NAMES) / at_once)
    a_run = math.prod(int(word.partition("=")[2]) for word in words)
    assert outcome.launcher.spent["work"] == 100 * a_run * len(NAMES)


def test_a_run_that_fits_no_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="a run takes 16 GPUs of 1 nodes; the cluster has 64 GPUs, 8 a node"):
        sweep(Cluster(64), lambda order: Timing(1.0), tmp_path, "train.devices=16", "train.batch_size=64")


def test_starts_and_checkpoints_take_their_time(tmp_path: Path) -> None:
    timing = Timing(work=1000.0, start=30.0, interval=300.0, save=2.0)
    outcome = sweep(Cluster(1), lambda order: timing, tmp_path)
    assert outcome.makespan == 20 * (30 + 1000 + 3 * 2)
    assert outcome.launcher.spent == {"starting": 20 * 30, "work": 20 * 1000, "saving": 20 * 6}
    assert Timing(work=900.0, interval=300.0, save=2.0).seconds(900.0) == 904, "none after the last step"


def test_a_run_that_dies_three_times_is_failed_and_the_others_go_on(tmp_path: Path) -> None:
    victims = [plan("pooling_size").specs["pool5"].with_seed(seed).run_id for seed in (0, 1, 2)]
    deaths = {victims[0]: [50.0, 50.0, 50.0], victims[1]: [50.0, 50.0], victims[2]: [50.0]}

    def death(run_id: str, attempt: int) -> float:
        return dict(enumerate(deaths.get(run_id, ()))).get(attempt, math.inf)

    outcome = sweep(Cluster(2), lambda order: Timing(100.0), tmp_path, deaths=death)
    assert outcome.failed == ["pooling_size/pool5 seed 0"]
    assert Counter(record.status for record in Store(tmp_path)) == {"ok": 19, "failed": 1}
    begun = Counter(job.name for _, job in outcome.begun)
    assert [begun[f"pooling_size/pool5 seed {seed}"] for seed in range(4)] == [3, 3, 2, 1]
    assert begun.total() == 20 + 2 + 2 + 1
    again = [job.name for _, job in outcome.begun][20:]
    assert again[:3] == [f"pooling_size/pool5 seed {seed}" for seed in (0, 1, 2)], "after all others"
    assert outcome.launcher.spent == {"work": 1900, "lost": 6 * 50, "starting": 0, "saving": 0}


def test_a_run_that_makes_no_step_is_killed_and_given_up(tmp_path: Path) -> None:
    def timing(order: RunRequest) -> Timing:
        return Timing(100.0, start=1e6 if order.name == NAMES[0] else 0.0)

    outcome = sweep(Cluster(32), timing, tmp_path, limits=Limits(stall_seconds=1800.0))
    assert outcome.failed == [NAMES[0]]
    (reason,) = (record.data["reason"] for record in Store(tmp_path) if record.status == "failed")
    assert "given up after 3 attempts: it made no step for too long" in reason
    assert 3 * 1800 <= outcome.makespan < 3 * (1800 + 1500 + 62), "a tick and a lease each"


def failure_of(seed: int, mean: float) -> float:
    """When the only node of a cluster fails first."""
    return random.Random(seed).expovariate(1 / mean)


@pytest.mark.parametrize("queues", [False, True], ids=["workers", "queue"])
def test_a_lost_node_costs_what_was_not_saved(queues: bool, tmp_path: Path) -> None:
    mean, repair = 40_000.0, 1000.0
    first = failure_of(4, mean)
    timing = Timing(work=first + 100, start=20.0, interval=100.0)
    cluster = Cluster(1, failures=mean, repair=repair, requeue=120.0, queues=queues, seed=4)
    outcome = simulate([plan("pooling_size")], [0], cluster, lambda order: timing, tmp_path, deaths=lambda *_: math.inf)
    lost = (first - 20) % 100
    spent = outcome.launcher.spent
    # The first run alone is disturbed unless the node fails again, which is counted.
    assert spent["work"] == pytest.approx(4 * timing.work)
    assert outcome.launcher.lost_runs >= 1
    again = first + repair + (0 if queues else 60)
    if outcome.launcher.lost_runs == 1:
        assert spent["lost"] == pytest.approx(lost)
        assert spent["starting"] == 5 * 20
        assert again <= outcome.makespan - spent.total() + first <= again + 2.5
    assert not outcome.failed


def test_nodes_that_fail_often_change_no_counts(tmp_path: Path) -> None:
    timing = Timing(work=5_000.0, start=50.0, interval=500.0, save=3.0)
    outcome = sweep(Cluster(24, failures=9_000.0, repair=600.0, seed=1), lambda order: timing, tmp_path,
                    "train.devices=4")  # fmt: skip
    spent, launcher = outcome.launcher.spent, outcome.launcher
    assert launcher.lost_runs > 5
    assert len(outcome.ended) == 20 and not outcome.failed
    assert spent["work"] == pytest.approx(4 * 20 * timing.work)
    assert 0 < spent["lost"] < 4 * launcher.lost_runs * 503
    assert spent["starting"] <= 4 * 50 * (20 + launcher.lost_runs)
    assert any("is trained by node" in note for note in outcome.notes), "the lease of a lost owner is waited for"
    assert not list((tmp_path / ".claims").iterdir())


@pytest.mark.slow
def test_checkpoints_further_apart_than_failures_are_given_up(tmp_path: Path) -> None:
    timing = Timing(work=50_000.0, interval=20_000.0)
    cluster = Cluster(1, failures=3_000.0, repair=10.0)
    outcome = simulate([plan("pooling_size")], [0], cluster, lambda order: timing, tmp_path)
    assert outcome.failed, "three losses in a row that got no further than before"


def test_a_run_of_an_owner_that_died_elsewhere_is_taken_over(tmp_path: Path) -> None:
    run_id = plan("pooling_size").specs["pool3"].with_seed(0).run_id
    hold(Claims(tmp_path), ClaimOwner(run_id, 0, "a-token", 7, "another", "another machine", 1, 1, "1"))
    top = Claims(tmp_path).current(run_id)
    assert top is not None and (top.token, top.beat, top.host) == ("a-token", 7, "another")
    outcome = sweep(Cluster(64), lambda order: Timing(10.0), tmp_path)
    assert len(outcome.ended) == len(NAMES)
    assert 10 + 60 <= outcome.ended[run_id] <= 10 + 60 + 6, "the lease, by the sweep's own clock"
    assert sorted(outcome.ended.values())[-2] == 10.0
    assert any("is trained by another; waiting for it" in note for note in outcome.notes)


def test_max_hours_are_those_of_the_clock(tmp_path: Path) -> None:
    outcome = sweep(Cluster(1), lambda order: Timing(3600.0), tmp_path, limits=Limits(hours=3.5))
    assert len(outcome.ended) == 4 and outcome.makespan == 4 * 3600


def test_time_stands_still_until_somebody_waits() -> None:
    clock = Time()
    assert clock.monotonic() == clock.monotonic() == 0.0
    clock.sleep(0.5)
    assert clock.monotonic() == 0.5


# ---------------------------------------------------------------------------------------------------------------------
# Counts


@pytest.mark.parametrize("mixer", ["pooling", "depthwise_conv", "attention", "random"])
def test_operations_are_three_times_the_macs(mixer: str) -> None:
    """Of a product forward, the gradient of its input and of its weights; the stem has no input to train, and a random
    matrix no weights."""
    spec = spec_of({"model.token_mixer": (mixer,) * 4, "train.batch_size": 64})
    cost = count(spec)
    products = {name: n for name, n in cost.macs_by_operator.items() if "norm" not in name}
    net = build_net(spec)
    stem = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    side = spec.data.image_size // stem.stride[0]
    less = side * side * stem.weight.numel()
    if mixer == "random":
        less += sum(products.get(name, 0) for name in ("matmul", "bmm"))
    assert scaling.count_work(spec).operations / 2 == pytest.approx(3 * sum(products.values()) - less, rel=1e-3)


def test_elements_by_hand() -> None:
    """One step of the smallest pooling model against the same one without a mixer: what pooling moves."""
    one, none = (
        scaling.count_work(spec_of({"model.token_mixer": (m,) * 4, "train.batch_size": 64}))
        for m in ("pooling", "identity")
    )
    maps = 16 * 16 * 16 + 8 * 8 * 32 + 2 * 4 * 4 * 64 + 2 * 2 * 128  # depths 1, 1, 2, 1
    # forward: pooling reads and writes, the subtraction reads two and writes one; backward: the gradient of each and
    # their sum.
    assert one.elements - none.elements == pytest.approx((2 + 3 + 2 + 3 + 3) * maps, rel=0.25)
    assert one.operations == none.operations and one.kernels > none.kernels


def test_a_checkpoint_is_as_large_as_computed() -> None:
    spec = plan("table5", "imagenet").specs["baseline"]
    net = build_net(spec)
    optimizer = torch.optim.AdamW(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    stream = io.BytesIO()
    torch.save({"weights": net.state_dict(), "optimizer": optimizer.state_dict()}, stream)
    work = scaling.count_work(spec)
    assert work.params == count(spec).params
    assert scaling.checkpoint_bytes(work) == pytest.approx(len(stream.getvalue()), rel=0.01)


def test_kept_activations_are_those_of_the_backward_pass() -> None:
    """Two linear layers with GELU between: the input, what GELU reads, what the second layer reads."""
    spec = spec_of({"train.batch_size": 64})
    work = scaling.count_work(spec)
    assert 0 < work.saved < work.elements
    assert scaling.memory_bytes(spec, work, 4) == pytest.approx(64 * work.saved * 4 + 16 * work.params)


# ---------------------------------------------------------------------------------------------------------------------
# Formulas


def test_an_all_reduce_moves_what_a_ring_moves() -> None:
    for world in (2, 4, 8):
        parts = [[float(rank)] * world for rank in range(world)]  # a part an element
        sent = 0
        for phase in ("add", "copy"):
            for step in range(world - 1):
                moving = []
                for rank in range(world):
                    part = (rank - step + (phase == "copy")) % world
                    moving.append((rank, part, parts[rank][part]))
                    sent += rank == 0
                for rank, part, value in moving:
                    to = (rank + 1) % world
                    parts[to][part] = parts[to][part] + value if phase == "add" else value
        assert all(value == sum(range(world)) for rank in parts for value in rank)
        size = 48e6
        latency = scaling.all_reduce_seconds(0, world)
        assert scaling.all_reduce_seconds(size, world) - latency == pytest.approx(sent / world * size / scaling.NVLINK)
    assert scaling.all_reduce_seconds(48e6, 1) == 0.0
    assert scaling.all_reduce_seconds(48e6, 8, 2) > 7 * scaling.all_reduce_seconds(48e6, 8), "over the network"


def test_youngs_interval_wastes_least() -> None:
    for save, failures in ((0.5, 86400.0), (2.0, 3600.0), (0.5, 150 * 86400.0)):
        best = minimize_scalar(
            lambda t, s=save, f=failures: scaling.waste(t, s, f), bounds=(1, 1e6), method="bounded"
        ).x
        young = scaling.young(save, failures)
        assert young == pytest.approx(best, rel=1e-3)
        ratio = math.sqrt(save / (2 * failures))  # Daly 2006, equation 37: the higher order
        daly = math.sqrt(2 * save * failures) * (1 + ratio / 3 + ratio**2 / 9) - save
        assert young == pytest.approx(daly, rel=0.02)


def test_the_simulation_wastes_what_the_formula_says(tmp_path: Path) -> None:
    """Many failures of runs that are long beside the interval."""
    timing = Timing(work=400_000.0, start=100.0, interval=2000.0, save=20.0)
    failures = 100_000.0
    cluster = Cluster(20, gpus_per_node=1, failures=failures, repair=10.0, requeue=0.0, queues=True)
    outcome = sweep(cluster, lambda order: timing, tmp_path)
    spent = outcome.launcher.spent
    assert outcome.launcher.lost_runs > 60
    simulated = (spent.total() - 20 * timing.start) / spent["work"] - 1
    assert simulated == pytest.approx(scaling.waste(2000.0, 20.0, failures, 100.0), rel=0.15)


def test_a_step_is_bound_by_what_takes_longest() -> None:
    specs = {n: plan("table5", "imagenet", (f"train.devices={n}",)).specs["baseline"] for n in (8, 512)}
    work = scaling.count_work(specs[8])
    fed = scaling.Rates(4000.0, cores_per_gpu=math.inf)
    step = scaling.step_seconds(specs[8], work, 1 / 4000, fed)
    assert step["compute"] == pytest.approx(512 / 4000) and step["input"] == 0
    assert step["step"] == pytest.approx(step["compute"] + step["communicate"] + step["fixed"])
    assert step["communicate"] < 0.01 * step["step"]
    small = scaling.step_seconds(specs[512], work, 1 / 4000, fed)
    assert small["compute"] == work.kernels * scaling.KERNEL > 8 / 4000, "the host is what it waits for"
    starved = scaling.step_seconds(specs[8], work, 1 / 4000, scaling.Rates(4000.0, 100.0, 10.0))
    assert starved["step"] == 512 / 1000


def test_batch_1024_takes_four_times_the_steps_over_the_same_images() -> None:
    specs = plan("table5", "imagenet", ("train.devices=8",)).specs
    work = scaling.count_work(specs["ppaa"])
    rates = scaling.Rates(4000.0, cores_per_gpu=math.inf)
    large = specs["ppaa"].model_copy(
        update={"train": specs["ppaa"].train.model_copy(update={"batch_size": 4096})}, deep=True
    )
    small, large_seconds = (scaling.run_seconds(s, work, 1 / 4000, rates) for s in (specs["ppaa"], large))
    assert specs["ppaa"].train.batch_size == 1024
    steps = 310 * (1_281_167 // 1024 - 1_281_167 // 4096)
    parts = scaling.step_seconds(large, work, 1 / 4000, rates)
    more = steps * (parts["communicate"] + parts["fixed"]) + 310 * (3 * 1024 / 8) / 4000  # and the dropped remainder
    assert small - large_seconds == pytest.approx(more, rel=0.05)
    assert small < 1.1 * large_seconds


def test_a_run_takes_all_its_epochs() -> None:
    spec = plan("table5", "imagenet").specs["baseline"]
    seconds = scaling.run_seconds(spec, scaling.count_work(spec), 1 / 1000, scaling.Rates(1000.0, cores_per_gpu=1e9))
    images = 310 * (1_281_167 // 4096 * 4096 + 50_000 / 3)
    assert seconds == pytest.approx(images / 1000, rel=0.01)


def test_the_rate_that_the_gpu_benchmark_leaves_takes_the_place_of_the_assumed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    monkeypatch.setattr(scaling, "RESULTS", path)
    assert scaling.measured_images() is None
    ways = [way for way in gpu.ways() if not way.compiled and way.name in ("timm as its script has it", "ours")]
    lines = list(gpu.compare(Case("t5", "digits", 2), Setting(), "training", ways, floor=1e-6, least=0.0))
    path.write_text(json.dumps({"gpu": {"results": lines}}))
    assert scaling.measured_images() is None, "not compiled"
    lines = [line | {"compiled": True} for line in lines]
    path.write_text(json.dumps({"gpu": {"results": lines}}))
    assert scaling.measured_images() == lines[1]["images_per_second"]


def test_the_assumed_rates_are_in_order() -> None:
    rates = scaling.assumed_images()
    assert rates["low"] < rates["nominal"] < rates["high"] < rates["ceiling"]


@pytest.mark.slow
def test_no_order_of_the_runs_beats_the_bound() -> None:
    layout = scaling.Layout(64, 1, 8)
    costs = scaling.Costs(scaling.Rates(4800.0, cores_per_gpu=math.inf))
    bound = scaling.bound(layout, costs, 3600.0)
    outcome = scaling.simulated(layout, costs, 3600.0, math.inf)
    assert bound <= outcome.makespan <= (2 - 1 / 8) * bound
    assert outcome.launcher.lost_runs == 0 and len(outcome.ended) == 18
    assert isinstance(outcome.launcher, Simulated)
