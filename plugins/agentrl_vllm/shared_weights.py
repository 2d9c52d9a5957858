"""Weights on their way to another process of this machine: a file of safetensors in shared memory."""

import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from agentrl.interfaces import Weights
from agentrl.machine import shared_memory


def make_folder(size: int) -> Path:
    """Return a new folder: in shared memory where there is room for so many bytes, else on the disk."""
    return Path(tempfile.mkdtemp(prefix="agentrl-vllm-", dir=shared_memory(size)))


def write(tensors: Weights, dtype: torch.dtype, folder: Path) -> None:
    """Write the tensors to a file in the folder, in the precision that the engine computes in."""
    ready = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    save_file(ready, folder / "model.safetensors")


def remove(folder: Path) -> None:
    """Delete the folder, with what `write` has written; one that is gone is fine."""
    shutil.rmtree(folder, ignore_errors=True)
