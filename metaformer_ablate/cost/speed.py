"""Images per second and peak memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.devices import device_name
from metaformer_ablate.system.memory import peak_memory, start_peak_memory
from metaformer_ablate.tasks.registry import task_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Speed:
    """Inference in fp32 on this machine. Memory: growth of the process on a CPU, of the allocator on a GPU."""

    images_per_second: float
    peak_memory_bytes: int | None
    batch_size: int
    device: str
    threads: int


def measure_speed(spec: RunSpec, device: torch.device, batch_size: int, seconds: float = 1.0) -> Speed:
    """Times inference of random images of the spec's resolution: median over batches for about `seconds`."""
    import time
    from statistics import median

    import torch

    from metaformer_ablate.models.memory_format import laid_out

    part = task_of(spec).part("net")
    blank = spec.model_copy(update={"model": spec.model.model_copy(update={"init_from": None})})
    net = laid_out(part.build_net(blank), "channels_last").eval().to(device)
    images = torch.rand(batch_size, *part.image_shape(spec), device=device)
    images = images.to(memory_format=torch.channels_last)
    times: list[float] = []
    with torch.inference_mode():
        before = start_peak_memory(device)
        net(images)
        peak = peak_memory(device)
        while sum(times) < seconds or len(times) < 3:
            start = time.perf_counter()
            net(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
    growth = None if peak is None or before is None else max(peak - before, 0)
    return Speed(batch_size / median(times), growth, batch_size, device_name(device), torch.get_num_threads())
