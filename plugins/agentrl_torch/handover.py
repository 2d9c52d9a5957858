"""Weights on their way from the ranks to the main process: a file in shared memory, which is then mapped."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

_SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def place(size: int) -> Iterator[Path]:
    """Yield where to write a file of so many bytes: in shared memory if there is room; then it is gone."""
    with tempfile.TemporaryDirectory(prefix="agentrl-weights-", dir=_folder(size)) as folder:
        yield Path(folder) / "weights.safetensors"


def take(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file; they stay when it goes."""
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def _folder(size: int) -> Path | None:
    if not _SHARED_MEMORY.is_dir():
        return None
    return _SHARED_MEMORY if shutil.disk_usage(_SHARED_MEMORY).free > 1.2 * size else None
