"""Weights on their way from the ranks to the main process: a file in shared memory, which is then mapped."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from agentrl.machine import shared_memory


@contextmanager
def place(size: int) -> Iterator[Path]:
    """Yield where to write a file of so many bytes: in shared memory if there is room; then it is gone."""
    with tempfile.TemporaryDirectory(prefix="agentrl-weights-", dir=shared_memory(size)) as folder:
        yield Path(folder) / "weights.safetensors"


def take(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file; they stay when it goes."""
    tensors: dict[str, Tensor] = load_file(path)
    return tensors
