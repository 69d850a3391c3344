"""Table 5 under the `imagenet` recipe on 8, 64 and 512 GPUs: GPU hours, layouts, what they need, what breaks first.

Three sorts of number, never mixed: counted (of our models and our recipe), assumed (the constants below, each with its
source), and computed from these by the functions here. What another benchmark has measured takes the place of an
assumption: `measured` looks for it in results.json. docs/scaling.md quotes the lines.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.simulation import Cluster, Outcome, Timing, simulate
from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.records.claims import HEARTBEAT_SECONDS
from metaformer_ablate.runs.request import RunRequest
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec

RESULTS = Path(__file__).parent / "results.json"
EXPERIMENT, RECIPE = "table5", "imagenet"
DAY = 86400.0

# Assumed: a node as DGX H100 is one (NVIDIA's data sheet): H100 SXM5, two Xeons of 56 cores, a 400 Gb/s port a GPU.
GPUS_PER_NODE = 8
CORES_PER_GPU = 14
GPU_MEMORY = 80e9  # bytes
BANDWIDTH = 3.35e12  # bytes a second
OPERATIONS = 989e12  # a second, dense bf16
NVLINK, NETWORK = 450e9, 50e9  # bytes a second, a GPU, one direction
HOP = 10e-6  # seconds of one hop of a collective, whatever its size: order of magnitude
KERNEL = 10e-6  # seconds of the host for an eager operator: order of magnitude
LIGHTNING = 1.5e-3  # seconds a step: the most that this project allows itself

# Assumed: training of poolformer_s12 at 224, amp, channels_last, by timm on an RTX 3090 (timm's
# results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv), times the ratio of the bandwidths (936 GB/s there).
RTX_3090_IMAGES, RTX_3090_BANDWIDTH = 1342.54, 936e9

# Assumed: 147.9 GB of ILSVRC2012_img_train.tar over its images; decode and augmentation as timm does it, one core of
# many in a server, below what `python -m benchmarks loading` finds on two.
JPEG_BYTES = 147.9e9 / 1_281_167
IMAGES_PER_CORE = 250.0
SHARD_IMAGES = 1000

# Assumed: what a checkpoint stops a run for beside its bytes over this rate (fsync on a network file system, SHA-256).
CHECKPOINT_BANDWIDTH, CHECKPOINT_FIXED = 500e6, 0.2
START = 120.0  # seconds of imports, compilation and filling the loaders' queues, each attempt
NODE_FAILURES = 150 * DAY  # 6.5 failures in 1,000 node-days (Kokolis et al., arXiv 2410.21680, RSC-1)
PREEMPTION = 1 * DAY  # a partition on which every node is taken away once a day


def measured_images() -> float | None:
    """Images a second of S12 in training, compiled and without Triton as the recipe has it, that `benchmarks gpu` has
    left in results.json; None where it has not."""
    content = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    wanted = {"part": "training", "side": "ours", "compiled": True}
    lines = (line for line in content.get("gpu", {}).get("results", ()) if wanted.items() <= line.items())
    return next((float(line["images_per_second"]) for line in lines), None)


# ---------------------------------------------------------------------------------------------------------------------
# Counted


@dataclass(frozen=True)
class Work:
    """One training step of a model, forward and backward, counted operator by operator without fusion.

    Elements, operations (two a multiply-add) and roofline are of one image, kernels and norms of the step.
    """

    elements: float  # read and written
    product_elements: float  # of these, by matrix products and convolutions
    operations: float
    roofline: (
        float  # seconds: each operator as long as its bytes in bf16 or its operations take at the data sheet's rate
    )
    saved: float  # elements kept for the backward pass
    kernels: int
    norms: int
    params: int  # trained
    frozen: int


@cache
def _count(spec_json: str) -> Work:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    from metaformer_ablate.models.build import build_model

    spec = RunSpec.model_validate_json(spec_json)
    images = spec.train.batch_size // GPUS_PER_NODE  # weights are read once for all of them
    rows: list[tuple[str, int, float]] = []  # operator, elements, operations

    def operations_of(packet: Any, args: Any, kwargs: Any, out: Any) -> float:
        if packet is torch.ops.aten.convolution_backward:  # torch's counter forgets the groups
            return 2.0 * sum(args[-1][:2]) * args[0].numel() * math.prod(args[2].shape[1:])
        return flop_registry[packet](*args, **kwargs, out_val=out) if packet in flop_registry else 0.0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            ins, outs = ([t for t in tree_leaves(x) if isinstance(t, torch.Tensor)] for x in ((args, kwargs), out))
            storages = {t.untyped_storage()._cdata for t in ins}
            if func._schema.is_mutable or any(t.untyped_storage()._cdata not in storages for t in outs):  # no view
                elements = sum(t.numel() for t in [*ins, *outs])
                packet = func._overloadpacket
                rows.append((str(packet), elements, operations_of(packet, args, kwargs or {}, out)))
            return out

    net = build_model(spec.model, *spec.data.net_shape, seed=spec.seed).to("meta").train()
    own = {p.untyped_storage()._cdata for p in net.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with Watch(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        shape = images, DATASETS[spec.data.name].channels, spec.data.image_size, spec.data.image_size
        net(torch.empty(shape, device="meta")).sum().backward()
    return Work(
        elements=sum(elements for _, elements, _ in rows) / images,
        product_elements=sum(elements for _, elements, operations in rows if operations) / images,
        operations=sum(operations for *_, operations in rows) / images,
        roofline=sum(max(2 * n / BANDWIDTH, operations / OPERATIONS) for _, n, operations in rows) / images,
        saved=sum(t.untyped_storage().nbytes() // t.element_size() for t in kept.values()) / images,
        kernels=len(rows),
        norms=sum("native_batch_norm_backward" in name for name, *_ in rows),
        params=sum(p.numel() for p in net.parameters() if p.requires_grad),
        frozen=sum(p.numel() for p in net.parameters() if not p.requires_grad),
    )


def count_work(spec: RunSpec) -> Work:
    """Counts the model of a spec. On the meta device: nothing is computed."""
    alone = spec.with_seed(0)
    return _count(json.dumps(alone.to_dict()))


def checkpoint_bytes(work: Work) -> int:
    """Weights and AdamW's two moments in fp32; what does not train is in it once."""
    return 4 * (3 * work.params + work.frozen)


# ---------------------------------------------------------------------------------------------------------------------
# Computed from assumptions


@dataclass(frozen=True)
class Rates:
    """What the steps of a run are computed from."""

    images: float  # of the baseline in training, a second and GPU, where nothing else is in the way
    images_per_core: float = IMAGES_PER_CORE
    cores_per_gpu: float = CORES_PER_GPU  # math.inf: the images come fast enough, whatever it takes


def assumed_images() -> dict[str, float]:
    """Images a second of the baseline on an H100, from low to high; none of them is a measurement of this code.

    low: every operator reads and writes fp32, at 60% of the bandwidth. nominal: timm's on another card. high: every
    operator in bf16 at 80%. ceiling: matrix products alone touch memory, in bf16, at the whole bandwidth.
    """
    work = count_work(plan(EXPERIMENT, RECIPE).spec("baseline", 0))
    return {
        "low": 0.6 * BANDWIDTH / (4 * work.elements),
        "nominal": RTX_3090_IMAGES * BANDWIDTH / RTX_3090_BANDWIDTH,
        "high": 0.8 * BANDWIDTH / (2 * work.elements),
        "ceiling": BANDWIDTH / (2 * work.product_elements),
    }


def all_reduce_seconds(size: float, devices: int, nodes: int = 1) -> float:
    """A ring over all GPUs moves 2 (n - 1) / n of the bytes through each one's link; two trees deep of latency."""
    world = devices * nodes
    if world == 1:
        return 0.0
    link = NVLINK if nodes == 1 else NETWORK
    return 2 * (world - 1) / world * size / link + 2 * math.ceil(math.log2(world)) * HOP


def step_seconds(spec: RunSpec, work: Work, seconds_an_image: float, rates: Rates) -> dict[str, float]:
    """A step of a run on its devices: `compute` (or the host's time for its operators, where that is longer),
    `communicate` (not hidden behind the backward pass), `fixed`, `input` of the same images, and `step` in all."""
    train = spec.train
    share = train.batch_size / train.world
    compute = train.accumulation * max(share / train.accumulation * seconds_an_image, work.kernels * KERNEL)
    communicate = all_reduce_seconds(4 * work.params, train.devices, train.nodes)
    communicate += 2 * work.norms * all_reduce_seconds(0, train.devices, train.nodes)  # statistics of batch norm
    fixed = LIGHTNING + 28 * work.params / BANDWIDTH  # AdamW reads four arrays and writes three
    fetch = share / (rates.cores_per_gpu * rates.images_per_core)
    step = max(compute + communicate + fixed, fetch)
    return {"compute": compute, "communicate": communicate, "fixed": fixed, "input": fetch, "step": step}


def run_seconds(spec: RunSpec, work: Work, seconds_an_image: float, rates: Rates) -> float:
    """All epochs of a run with the cool-down, and an evaluation after each at a third of a training step an image."""
    train = spec.train
    images, evaluated = spec.data.split_sizes()
    steps = images // train.batch_size * step_seconds(spec, work, seconds_an_image, rates)["step"]
    fetch = 1 / (rates.cores_per_gpu * rates.images_per_core)
    evaluation = math.ceil(evaluated / train.world) * max(seconds_an_image / 3, fetch)
    return (train.epochs + train.cooldown_epochs) * (steps + evaluation)


def memory_bytes(spec: RunSpec, work: Work, bytes_an_element: int) -> float:
    """On each GPU: activations kept for the backward pass, weights, gradients and moments."""
    images = spec.train.batch_size / spec.train.world / spec.train.accumulation
    return images * work.saved * bytes_an_element + 16 * work.params + 4 * work.frozen


def save_seconds(size: float) -> float:
    """That a checkpoint stops a run for."""
    return CHECKPOINT_FIXED + size / CHECKPOINT_BANDWIDTH


def young(save: float, failures: float) -> float:
    """The interval between checkpoints that loses least: sqrt(2 x save x mean time between failures) (Young 1974)."""
    return math.sqrt(2 * save * failures)


def waste(interval: float, save: float, failures: float, start: float = START) -> float:
    """The share of time that goes into checkpoints, and into work and starts that failures take, to first order."""
    return save / interval + (interval / 2 + start) / failures


def requests_a_second(runs: int) -> float:
    """Of the results folder's file system for claims: each run beats (list, read, create, write, close, rename), and
    the sweep looks twice a second (a listing, an open and a read a run, and its own sign: four)."""
    return 6 * runs / HEARTBEAT_SECONDS + 2 * (2 * runs + 5)


# ---------------------------------------------------------------------------------------------------------------------
# The lines


@dataclass(frozen=True)
class Layout:
    """A sweep over a cluster: so many seeds, each run on `devices` GPUs of `nodes` nodes."""

    gpus: int
    seeds: int
    devices: int
    nodes: int = 1
    queues: bool = True  # --launcher slurm; else local

    @property
    def words(self) -> tuple[str, ...]:
        return f"train.devices={self.devices}", f"train.nodes={self.nodes}"

    @property
    def at_once(self) -> int:
        return min(self.gpus // (self.devices * self.nodes), 18 * self.seeds)


LAYOUTS = (
    Layout(8, 1, 4, queues=False),
    Layout(8, 1, 8, queues=False),
    Layout(8, 3, 8, queues=False),
    Layout(64, 3, 4),
    Layout(64, 3, 8),
    Layout(64, 3, 8, 2),
    Layout(512, 3, 4),
    Layout(512, 3, 8),
    Layout(512, 3, 8, 2),
    Layout(512, 7, 4),
)


class Costs:
    """Seconds of the runs of table 5 by row, from one rate of the baseline."""

    def __init__(self, rates: Rates):
        self.rates = rates
        self.specs = plan(EXPERIMENT, RECIPE).specs
        self.work = {row: count_work(spec) for row, spec in self.specs.items()}

    def seconds_an_image(self, row: str) -> float:
        """The baseline's, times the ratio of the rooflines."""
        return self.work[row].roofline / self.work["baseline"].roofline / self.rates.images

    def timing(self, order: RunRequest, interval: float) -> Timing:
        row = order.name.partition("/")[2].partition(" ")[0]
        spec, work = RunSpec.model_validate(order.spec), self.work[row]
        seconds = run_seconds(spec, work, self.seconds_an_image(row), self.rates)
        return Timing(seconds, START, interval, save_seconds(checkpoint_bytes(work)))


def simulated(layout: Layout, costs: Costs, interval: float, failures: float, chance: int = 0) -> Outcome:
    """The sweep of a layout through the real scheduler; nodes fail by the random numbers of the seed `chance`."""
    cluster = Cluster(layout.gpus, GPUS_PER_NODE, failures, queues=layout.queues, seed=chance)
    with tempfile.TemporaryDirectory() as folder:
        chosen = plan(EXPERIMENT, RECIPE, layout.words)
        return simulate([chosen], range(layout.seeds), cluster, lambda o: costs.timing(o, interval), Path(folder))


def bound(layout: Layout, costs: Costs, interval: float) -> float:
    """Seconds that no order of the runs can beat: all of them spread evenly, or the longest."""
    chosen = plan(EXPERIMENT, RECIPE, layout.words)
    each = []
    for row, spec in chosen.specs.items():
        seconds = run_seconds(spec, costs.work[row], costs.seconds_an_image(row), costs.rates)
        each.append(Timing(seconds, START, interval, save_seconds(checkpoint_bytes(costs.work[row]))).seconds(seconds))
    places = layout.gpus // (layout.devices * layout.nodes)
    return max(layout.seeds * sum(each) / places, *each)


def measure() -> list[dict[str, object]]:
    """Nothing is timed but checkpoints: counts, what follows from the assumptions, and simulated sweeps."""
    known = measured_images()
    rates = Rates(known or assumed_images()["nominal"], IMAGES_PER_CORE)
    fed = replace(rates, cores_per_gpu=math.inf)
    lines = [_inputs(known, rates)]
    lines += [_row(Costs(fed), row) for row in Costs(fed).specs]
    lines += _totals(known, rates)
    lines += [_parallel(Costs(fed), row, world) for row in ("baseline", "ppaa") for world in (1, 8, 16, 64, 512)]
    lines += [_memory(Costs(fed), devices) for devices in (1, 2, 4, 8)]
    lines += [_layout(layout, Costs(r)) for layout in LAYOUTS for r in (fed, rates)]
    lines += [_needs(layout, Costs(fed)) for layout in (LAYOUTS[1], LAYOUTS[4], LAYOUTS[9])]
    lines += _failures(Costs(rates))
    return lines


def _inputs(known: float | None, rates: Rates) -> dict[str, object]:
    return {
        "benchmark": "scaling",
        "case": "inputs",
        "images_a_second_and_gpu": round(rates.images),
        "images_are": "measured" if known else "ASSUMED",
        "images_a_second_and_core": round(rates.images_per_core),
        "cores_are": "ASSUMED",
        **{f"assumed_{name}": round(value) for name, value in assumed_images().items()},
    }


def _row(costs: Costs, row: str) -> dict[str, object]:
    work, spec = costs.work[row], plan(EXPERIMENT, RECIPE, ("train.devices=8",)).specs[row]
    seconds = run_seconds(spec, work, costs.seconds_an_image(row), costs.rates)
    return {
        "benchmark": "scaling",
        "case": f"row {row}",
        "relative_time_an_image": round(work.roofline / costs.work["baseline"].roofline, 2),
        "mb_an_image_bf16": round(2 * work.elements / 1e6),
        "gigaoperations": round(work.operations / 1e9, 1),
        "kernels": work.kernels,
        "checkpoint_mb": round(checkpoint_bytes(work) / 1e6),
        "gpu_hours_on_8": round(8 * seconds / 3600, 1),
    }


def _totals(known: float | None, rates: Rates) -> list[dict[str, object]]:
    """GPU hours of one seed of all rows on 8 GPUs each: at each rate, with images at no cost and from the cores."""
    each = {"measured": known} if known else {k: v for k, v in assumed_images().items() if k != "ceiling"}
    lines = []
    for name, images in each.items():
        for cores in (math.inf, rates.cores_per_gpu):
            costs = Costs(replace(rates, images=images, cores_per_gpu=cores))
            feed = "images fed" if cores == math.inf else f"{cores} cores a GPU"
            rows = plan(EXPERIMENT, RECIPE, ("train.devices=8",)).specs.items()
            total = sum(run_seconds(s, costs.work[r], costs.seconds_an_image(r), costs.rates) for r, s in rows)
            lines.append(
                {
                    "benchmark": "scaling",
                    "case": f"18 rows, one seed, {name}, {feed}",
                    "images_a_second_and_gpu": round(images),
                    "gpu_hours": round(8 * total / 3600),
                }
            )
    return lines


def _parallel(costs: Costs, row: str, world: int) -> dict[str, object]:
    """One run on more and more GPUs."""
    devices = min(world, GPUS_PER_NODE)
    words = f"train.devices={devices}", f"train.nodes={world // devices}"
    spec, work = plan(EXPERIMENT, RECIPE, words).specs[row], costs.work[row]
    parts = step_seconds(spec, work, costs.seconds_an_image(row), costs.rates)
    ideal = spec.train.batch_size / world * costs.seconds_an_image(row)
    return {
        "benchmark": "scaling",
        "case": f"one run of {row} on {world} GPUs",
        "images_a_gpu": spec.train.batch_size // world,
        **{f"{name}_ms": round(1000 * parts[name], 2) for name in ("compute", "communicate", "fixed", "step")},
        "efficiency": round(ideal / parts["step"], 2),
    }


def _memory(costs: Costs, devices: int) -> dict[str, object]:
    spec = plan(EXPERIMENT, RECIPE, (f"train.devices={devices}",)).specs["baseline"]
    low, high = (memory_bytes(spec, costs.work["baseline"], size) / 1e9 for size in (2, 4))
    return {
        "benchmark": "scaling",
        "case": f"memory of a run on {devices} GPUs, batch 4096 whole",
        "images_a_gpu": spec.train.batch_size // devices,
        "gb_bf16": round(low),
        "gb_fp32": round(high),
        "gpu_has": round(GPU_MEMORY / 1e9),
    }


def _interval(costs: Costs, failures: float) -> float:
    return young(save_seconds(checkpoint_bytes(costs.work["baseline"])), failures)


def _layout(layout: Layout, costs: Costs) -> dict[str, object]:
    interval = _interval(costs, NODE_FAILURES / layout.nodes)
    outcome = simulated(layout, costs, interval, NODE_FAILURES)
    spent = outcome.launcher.spent
    return {
        "benchmark": "scaling",
        "case": f"{layout.gpus} GPUs, {layout.seeds} seeds, {layout.devices} x {layout.nodes} GPUs a run",
        "images": "fed" if costs.rates.cores_per_gpu == math.inf else f"{costs.rates.cores_per_gpu} cores a GPU",
        "runs": len(outcome.ended),
        "at_once": layout.at_once,
        "days": round(outcome.makespan / DAY, 2),
        "times_bound": round(outcome.makespan / bound(layout, costs, interval), 2),
        "gpu_hours": round(spent.total() / 3600),
        "utilisation": round(outcome.utilisation, 2),
        "last": outcome.last.removeprefix(f"{EXPERIMENT}/"),
        "node_failures": outcome.launcher.node_failures,
        "lost_gpu_hours": round((spent["lost"] + spent["starting"]) / 3600, 1),
    }


def _needs(layout: Layout, costs: Costs) -> dict[str, object]:
    """While all places are taken by baselines."""
    runs, nodes = layout.at_once, layout.gpus // GPUS_PER_NODE
    images = runs * layout.devices * layout.nodes * costs.rates.images
    size = checkpoint_bytes(costs.work["baseline"])
    interval = _interval(costs, NODE_FAILURES / layout.nodes)
    return {
        "benchmark": "scaling",
        "case": f"what {layout.gpus} GPUs need, {runs} runs at once",
        "images_a_second": round(images),
        "cores": round(images / costs.rates.images_per_core),
        "cores_there": CORES_PER_GPU * layout.gpus,
        "read_gb_a_second": round(images * JPEG_BYTES / 1e9, 1),
        "opens_a_second_folder": round(images),
        "opens_a_second_shards": round(images / SHARD_IMAGES, 1),
        "first_epoch_tb": round(nodes * 1_281_167 * JPEG_BYTES / 1e12, 2),
        "checkpoint_mb_a_second_at_15": round(runs * size / 15 / 1e6),
        f"checkpoint_mb_a_second_at_{interval:.0f}": round(runs * size / interval / 1e6, 1),
        "checkpoint_gb": round(2 * runs * size / 1e9, 1),
        "claim_requests_a_second": round(requests_a_second(runs)),
    }


def _failures(costs: Costs) -> list[dict[str, object]]:
    """What checkpoints and failures cost a run on one node: by formula, and in the simulation of the last layout."""
    size = checkpoint_bytes(costs.work["baseline"])
    save = save_seconds(size)
    lines: list[dict[str, object]] = [_checkpoint(size)]
    layout = LAYOUTS[-1]
    for name, failures, sweeps in (("a node fails every 150 days", NODE_FAILURES, 1), ("every day", PREEMPTION, 4)):
        for interval in (15.0, young(save, failures), 3600.0):
            outcomes = [simulated(layout, costs, interval, failures, chance) for chance in range(sweeps)]
            spent = sum((outcome.launcher.spent for outcome in outcomes), Counter[str]())
            first = layout.devices * sum(len(outcome.ended) for outcome in outcomes) * START
            lines.append(
                {
                    "benchmark": "scaling",
                    "case": f"{name}, a checkpoint every {interval:.0f} s",
                    "waste_by_formula": round(waste(interval, save, failures), 4),
                    "waste_simulated": round((spent.total() - first) / spent["work"] - 1, 4),
                    "sweeps": sweeps,
                    "lost_runs": sum(outcome.launcher.lost_runs for outcome in outcomes),
                    "given_up": sum(len(outcome.failed) for outcome in outcomes),
                    "days": round(sum(outcome.makespan for outcome in outcomes) / sweeps / DAY, 2),
                }
            )
    return lines


def _checkpoint(size: int, rounds: int = 5) -> dict[str, object]:
    """The one thing timed: a checkpoint of this size, sealed as runs do, on this machine's temporary folder."""
    import torch

    from metaformer_ablate.records.checkpoints import LAST, Checkpoints

    content = {"weights": torch.zeros(size // 4)}
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            start = time.perf_counter()
            Checkpoints(Path(folder)).save(lambda path: torch.save(content, path))
            taken.append(time.perf_counter() - start)
        written = (Path(folder) / LAST).stat().st_size
    return {
        "benchmark": "scaling",
        "case": "a checkpoint of S12",
        "mb": round(written / 1e6, 1),
        "seconds_assumed": round(save_seconds(size), 2),
        "seconds_here": round(sorted(taken)[rounds // 2], 2),
        "waste_at_15_s_assumed": round(save_seconds(size) / 15, 3),
    }
