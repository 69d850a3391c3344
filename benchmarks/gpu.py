"""PoolFormers on a GPU: what the device can do, the floor (see floor.py), and how far from it and from timm a step is.

`python -m benchmarks gpu --minutes 4` on a machine with one measures what is worth most first and stops in time;
`--part training` measures one part alone. `python -m benchmarks cifar10` trains the table. Elsewhere both say
that they are not measured.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.floor import BACKWARD, FORWARD, Rates, Work, block
from benchmarks.startup import ablate
from benchmarks.training import SIDES, Case, Setting, Side, ours, step_of
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.system.memory import peak_memory, start_peak_memory

LARGE, SMALL = Case("s12", "imagenet", 256), Case("t12", "cifar10", 512)
# Runs at once on one GPU of the whole table; $ABLATE_WORKERS sets another number.
WORKERS = 6


@dataclass(frozen=True)
class Way:
    """One way to train the model of a case."""

    name: str
    side: Callable[[RunSpec], Side]
    compiled: bool


def ways() -> list[Way]:
    sides: dict[str, Callable[[RunSpec], Side]] = {
        "timm as its script has it": SIDES["timm"][0],
        "timm in channels_last with fused AdamW": SIDES["timm_like_ours"][0],
        "ours": functools.partial(ours, kernels="torch"),
        "ours with Triton kernels": functools.partial(ours, kernels="triton"),
    }
    return [Way(name, side, compiled) for name, side in sides.items() for compiled in (False, True)]


Lines = Iterator[dict[str, object]]


class Budget:
    """Says whether there is time for one more measurement: for as much as the longest took so far."""

    def __init__(self, minutes: float | None, first_seconds: float = 20.0):
        self.until = None if minutes is None else time.monotonic() + 60 * minutes
        self.longest, self._begun = first_seconds, time.monotonic()

    def allows(self) -> bool:
        """Asked before each measurement."""
        now = time.monotonic()
        self.longest, self._begun = max(self.longest, now - self._begun), now
        return self.until is None or now + self.longest <= self.until


def parts(setting: Setting, large: Case = LARGE, small: Case = SMALL) -> dict[str, Callable[[], Lines]]:
    """The parts of the benchmark by name, the one that is worth most first; each gives its lines one by one."""
    chosen = ways()
    compiled = [way for way in chosen if way.compiled]  # timm twice, ours, ours with Triton
    able = functools.cache(lambda: rates(setting.device))

    def device() -> Lines:
        found = able()
        yield _line("rates", gb_per_second=round(found.bytes / 1e9), tflops=round(found.operations / 1e12))
        yield from floors(large, found)

    def stepped(work: str, of: Sequence[Way]) -> Callable[[], Lines]:
        return lambda: compare(large, setting, work, of, floor_of(large, able(), work))

    def at_once_all() -> Lines:
        for way in compiled[-2:]:
            for processes in (1, 2, 4, 8):
                yield at_once(small, setting, way, processes)

    def with_graphs() -> Lines:
        for processes in (1, 4):
            yield at_once(small, setting, compiled[-1], processes, graphs=True)

    return {
        "rates": device,
        "training": stepped("training", compiled),
        "kernels": lambda: iter(kernels(large, setting, compiled[-1])),
        "inference": stepped("inference", compiled),
        "small": at_once_all,
        "graphs": with_graphs,
        "sizes": lambda: of_sizes(setting, compiled[-1]),
        "plain": stepped("training", [way for way in chosen if not way.compiled]),
    }


PARTS = ("rates", "training", "kernels", "inference", "small", "graphs", "sizes", "plain")


def measure(minutes: float | None = None, part: str | None = None) -> Lines:
    """The lines of a part, or of all in the order of their worth, until the time is over. None where there is no GPU.

    A line that fails, for lack of memory say, says why, and the next part follows.
    """
    import torch

    if not torch.cuda.is_available():
        return
    yield from within(parts(Setting("cuda", "bf16")), Budget(minutes), part)


def within(named: Mapping[str, Callable[[], Lines]], budget: Budget, part: str | None = None) -> Lines:
    """The lines of the parts for as long as the budget allows; where it ends, a line says what was not begun."""
    for name, begin in named.items():
        if part not in (None, name):
            continue
        lines = begin()
        while True:
            if not budget.allows():
                yield _line("stopped", before=name, why="the time is over")
                return
            try:
                line = next(lines)
            except StopIteration:
                break
            except Exception as error:
                yield _line(name, failed=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
                break
            yield line


def cifar10() -> list[dict[str, object]]:
    """All rows of table5 under `cifar10`, one seed each: seconds of the command, imports and compilation included and
    the data there before. Empty where there is no GPU."""
    import torch

    from metaformer_ablate.data.folder import DataFolder

    if not torch.cuda.is_available():
        return []
    DataFolder.choose(None).require("cifar10")
    return [table("cifar10", int(os.environ.get("ABLATE_WORKERS", WORKERS)))]


def _line(part: str, **values: object) -> dict[str, object]:
    return {"benchmark": "gpu", "part": part, **values}


# ---------------------------------------------------------------------------------------------------------------------
# The device and the floor


def rates(device: str, numbers: int = 2**29, side: int = 8192, least: float = 0.2) -> Rates:
    """The better of a copy and of an update in place of fp32 numbers, and a square matrix product in bf16."""
    import torch

    x, y = torch.ones(2, numbers, device=device)
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    moved = 2 * x.numel() * x.element_size()  # each reads and writes as much
    calls = (lambda: y.copy_(x), lambda: x.mul_(1.0001), lambda: a @ b)
    copy, update, product = (_seconds(call, device, least=least) for call in calls)
    return Rates(moved / min(copy, update), 2 * side**3 / product)


def _seconds(step: Callable[[], object], device: str, rounds: int = 7, least: float = 0.2) -> float:
    """Of a call: the median over rounds of at least `least` seconds, after two calls that are not counted."""
    import torch

    def spent(count: int) -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    spent(2)
    count = max(1, round(least / spent(1)))
    return median(spent(count) for _ in range(rounds))


def work_of(case: Case, passes: Any) -> list[list[Work]]:
    """The work of each pass over one block of each stage."""
    spec = case.spec()
    assert spec.model.dims is not None
    shapes = zip(spec.model.dims, spec.model.stage_sizes(spec.data.image_size), strict=True)
    return [block(passes, batch=case.batch, tokens=h * w, channels=dim) for dim, (h, w) in shapes]


def floor_of(case: Case, able: Rates, work: str) -> float:
    """Seconds of all blocks."""
    passes = FORWARD if work == "inference" else FORWARD + BACKWARD
    depths = case.spec().model.depths or ()
    stages = [sum(one.seconds(able) for one in stage) for stage in work_of(case, passes)]
    return sum(depth * seconds for depth, seconds in zip(depths, stages, strict=True))


def floors(case: Case, able: Rates) -> list[dict[str, object]]:
    """Milliseconds of one block, forward and backward, in each stage, and which of the two bounds its passes."""
    lines = []
    for direction, passes in (("forward", FORWARD), ("backward", BACKWARD)):
        for i, stage in enumerate(work_of(case, passes)):
            by_memory = sum(one.bytes / able.bytes >= one.operations / able.operations for one in stage)
            lines.append(
                _line(
                    "floor",
                    case=f"one block of stage {i + 1}, {direction}",
                    ms=round(1e3 * sum(one.seconds(able) for one in stage), 3),
                    gb=round(sum(one.bytes for one in stage) / 1e9, 3),
                    tflop=round(sum(one.operations for one in stage) / 1e12, 3),
                    passes=len(stage),
                    bound_by_memory=by_memory,
                )
            )
    return lines


# ---------------------------------------------------------------------------------------------------------------------
# A step


@contextlib.contextmanager
def _step(case: Case, setting: Setting, way: Way, work: str) -> Iterator[Callable[[], None]]:
    """A step of a way; what it held is freed behind it."""
    import torch

    torch.manual_seed(0)
    spec = case.spec(setting)
    step = step_of(way.side(spec), spec, Setting(setting.device, setting.precision, way.compiled), work)
    yield step
    del step
    torch.compiler.reset()
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()


def compare(case: Case, setting: Setting, work: str, chosen: Sequence[Way], floor: float, least: float = 1.0) -> Lines:
    """Milliseconds per batch, images per second and peak memory of each way, timm's first; how many times the fastest
    compiled timm before it takes as long (the goal is 1.15, the aim 1.5), and the share of the floor in the time."""
    import torch

    device = torch.device(setting.device)
    timm: float | None = None
    for way in chosen:
        before = start_peak_memory(device) or 0
        with _step(case, setting, way, work) as step:
            seconds = _seconds(step, setting.device, least=least)
            peak = (peak_memory(device) or 0) - before
        if way.compiled and "timm" in way.name:
            timm = min(seconds, timm or seconds)
        yield _line(
            work,
            case=f"{case.size}, {case.recipe}, batch {case.batch}, {setting.precision}",
            side=way.name,
            compiled=way.compiled,
            ms=round(1e3 * seconds, 3),
            images_per_second=round(case.batch / seconds),
            peak_mib=round(peak / 2**20),
            faster_than_compiled_timm=None if timm is None else round(timm / seconds, 2),
            share_of_floor=round(floor / seconds, 3),
        )


def of_sizes(setting: Setting, way: Way, least: float = 1.0) -> Lines:
    """Images per second that the other sizes train with at 224 pixels."""
    for size, batch in (("s24", 256), ("s36", 128), ("m36", 128), ("m48", 64)):
        case = Case(size, "imagenet", batch)
        with _step(case, setting, way, "training") as step:
            seconds = _seconds(step, setting.device, rounds=3, least=least)
        yield _line("sizes", case=f"{size}, batch {batch}", side=way.name, images_per_second=round(batch / seconds))


def kernels(case: Case, setting: Setting, way: Way, steps: int = 3, most: int = 15) -> list[dict[str, object]]:
    """The kernels that take the most of a training step's time on the device, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = setting.device == "cuda"
    with _step(case, setting, way, "training") as step:
        for _ in range(3):
            step()
        with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
            for _ in range(steps):
                step()
    spent = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in profiler.key_averages()}
    return [
        _line("kernels", kernel=name[:100], ms=round(spent[name] / 1e3 / steps, 3), share=round(share, 3))
        for name in sorted(spent, key=lambda name: -spent[name])[:most]
        if (share := spent[name] / max(sum(spent.values()), 1e-9))
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Small images


_spent: Callable[[float], float]


def _begin(case: Case, setting: Setting, way: Way, graphs: bool) -> None:
    """In a process of its own: builds a way and warms it up."""
    import torch
    from torch._inductor import config  # as $TORCHINDUCTOR_CUDAGRAPHS sets it

    global _spent
    config.triton.cudagraphs = graphs
    torch.set_num_threads(1)
    spec = case.spec(setting)
    step = step_of(way.side(spec), spec, Setting(setting.device, setting.precision, way.compiled), "training")
    _spent = functools.partial(_seconds, step, setting.device, 1)
    _spent(0.0)


def _timed(least: float) -> float:
    return _spent(least)


def at_once(
    case: Case, setting: Setting, way: Way, processes: int, least: float = 3.0, graphs: bool = False
) -> dict[str, object]:
    """Training steps per second of several processes on one device, all in all; with CUDA `graphs` each step is sent to
    the device as a whole. Runs do without them: whether that gains anything is what this says."""
    with contextlib.ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        pools = [stack.enter_context(ProcessPoolExecutor(1, spawn)) for _ in range(processes)]
        for begun in [pool.submit(_begin, case, setting, way, graphs) for pool in pools]:
            begun.result()
        times = [timed.result() for timed in [pool.submit(_timed, least) for pool in pools]]
    return _line(
        "small images",
        case=f"{case.size}, {case.recipe}, batch {case.batch}, {setting.precision}",
        side=way.name,
        compiled=way.compiled,
        cuda_graphs=graphs,
        processes=processes,
        steps_per_second=round(sum(1 / seconds for seconds in times), 2),
    )


def table(recipe: str, workers: int, *words: str, experiment: str = "table5") -> dict[str, object]:
    """Seconds of `ablate run EXPERIMENT` from nothing to its table."""
    with tempfile.TemporaryDirectory() as folder:
        command = ablate("run", experiment, *words, "--recipe", recipe, "--workers", str(workers), "--results", folder)
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"ablate run {experiment} ended with {done.returncode}: {done.stderr[-2000:]}")
    case = f"ablate run {experiment} --recipe {recipe} --workers {workers}"
    return {"benchmark": "cifar10", "case": case, "seconds": round(seconds, 1), "device": _device()}


def _device() -> str:
    import torch

    return device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
