"""Looks at the machine without importing torch."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


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
