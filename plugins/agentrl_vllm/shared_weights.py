"""Weights on their way to another process of this machine: a file of safetensors in shared memory."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from agentrl.machine import shared_memory


def write(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Path:
    """Return a new folder with the tensors in a file, in the precision that the engine computes in.

    It is in shared memory where there is room, else where temporary files are.
    """
    size = sum(tensor.numel() for tensor in tensors.values()) * dtype.itemsize
    folder = Path(tempfile.mkdtemp(prefix="agentrl-vllm-", dir=shared_memory(size)))
    try:
        ready = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
        save_file(ready, folder / "model.safetensors")
    except BaseException:
        remove(folder)
        raise
    return folder


def remove(folder: Path | None) -> None:
    """Delete what `write` has written."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
