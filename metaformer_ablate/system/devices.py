"""Devices by name: auto, cpu, cuda, cuda:N."""

from __future__ import annotations

import torch

from metaformer_ablate.errors import RequestError


def choose_device(option: str) -> torch.device:
    """auto, cpu, cuda or cuda:N. Raises RequestError for a device that is not there."""
    if option == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(option)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise RequestError(f"--device is {option!r}; allowed: auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RequestError(f"--device is {option!r}, but this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def choose_devices(option: str, count: int) -> list[torch.device]:
    """The devices of this machine that share a run: `cuda:0,cuda:1`, or what `choose_device` takes, `count` times.

    Raises RequestError where they are not there, or not as many.
    """
    chosen = [choose_device(name) for name in option.split(",")]
    if len(chosen) == 1 and chosen[0].type == "cpu":
        return chosen * count
    if len(chosen) == 1 and chosen[0].index is None and count <= torch.cuda.device_count():
        return [torch.device("cuda", i) for i in range(count)]
    if len(chosen) != count:
        found = torch.cuda.device_count() if chosen[0].index is None else len(chosen)
        raise RequestError(f"train.devices is {count}, but --device {option} names {found} CUDA devices here")
    return chosen


def device_name(device: torch.device) -> str:
    """The name of the chip, as records and tables give it."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    import platform

    try:
        with open("/proc/cpuinfo") as stream:
            return next(line.split(":", 1)[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
