"""Memory of the process and of the device: the allocator, and the peak."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@cache
def retain_freed_memory() -> None:
    """Has the process keep the memory of freed tensors for those of the next step, where the C library is GNU's.

    By itself it hands large pieces back to the system, step after step, and is given each page again, empty: a tenth of
    the time of a small model's step, more on a busy machine. The process's largest memory grew by 3 to 4 percent.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # never
        mallopt(M_MMAP_THRESHOLD, 2**30)  # bytes from which on a tensor still gets pages of its own


def start_peak_memory(device: torch.device) -> int | None:
    """Begins to watch the peak of memory; the bytes in use now, None where the system does not tell."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        with open("/proc/self/clear_refs", "w") as stream:  # Linux: the peak starts again from what is resident now
            stream.write("5")
    except OSError:
        pass
    return peak_memory(device)


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes since `start_peak_memory`: allocated on a GPU, resident of the whole process on a CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/status") as stream:
            return next(int(line.split()[1]) * 1024 for line in stream if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
