"""Which machine and process this is, and whether another one is still there."""

from __future__ import annotations

import os
import socket
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any


@cache
def this_machine() -> str:
    """What has to be equal for a process id to mean the same process: host, boot and namespace of process ids."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id",):
        try:
            parts.append(Path(path).read_text().strip())
        except OSError:
            pass
    try:
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass
    return " ".join(parts)


def process_started(pid: int) -> str | None:
    """When a process began, as the system counts it, so that a reused id is told apart; "" where it cannot be known,
    None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def of_this_process() -> dict[str, Any]:
    """What tells others which process this is and lets them see whether it is still there."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "machine": this_machine(),
        "pid": pid,
        "parent": os.getppid(),
        "started": process_started(pid) or "",
    }


def is_gone(machine: str, pid: int, started: str) -> bool:
    """Whether it was a process of this machine that is there no more. False says nothing."""
    return machine == this_machine() and process_started(pid) != started


def exit_with_parent(parent: int) -> None:
    """Ends this process, a child, soon after its parent has gone; runs go on from their checkpoints elsewhere."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
