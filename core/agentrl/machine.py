"""Looks at the machine without importing torch."""

import math
import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_SHARED_MEMORY = Path("/dev/shm")


def cores() -> int:
    """Return how many cores this process may keep busy: those it is bound to, within a container's quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota = parse_quota(_CPU_QUOTA.read_text())
    except OSError:  # no control group, or not of version 2
        quota = None
    return min(bound, quota or bound)


def parse_quota(text: str) -> int | None:
    """Return the cores that a cgroup-v2 `cpu.max` ("QUOTA PERIOD", microseconds) allows, rounded up.

    At least 1; None if it sets no limit.
    """
    match text.split():
        case [quota, period] if quota.isdigit() and period.isdigit() and int(period):
            return max(1, math.ceil(int(quota) / int(period)))
    return None


def shared_memory(size: int) -> Path | None:
    """Return the folder of files that are memory, if there is one with room for `size` bytes and more."""
    if not _SHARED_MEMORY.is_dir():
        return None
    return _SHARED_MEMORY if shutil.disk_usage(_SHARED_MEMORY).free > 1.2 * size else None


def find_device() -> str:
    """Return "cuda" if there is an NVIDIA GPU that the installed torch can use, else "cpu"."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in {"", "-1"}
    return "cuda" if _torch_has_cuda() and not hidden and Path("/dev/nvidiactl").exists() else "cpu"


def _torch_has_cuda() -> bool:
    """Return whether torch was built for CUDA, as far as its version says."""
    try:
        return "+cpu" not in version("torch")
    except PackageNotFoundError:
        return False
