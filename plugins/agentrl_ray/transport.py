"""Carries files between the run and a process on another machine, in pieces, a few of them at a time.

Ray's object store holds a piece only for as long as it is on its way, so that it may be much smaller than a
model.
"""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Bytes of a piece, and how many of them are on their way at once.
PIECE = 16 * 2**20
_AT_ONCE = 3


def ship(keeper: Any, folder: Path) -> Path:
    """Copy a folder and all below it to where the actor is, and return the folder there."""
    import ray

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path: path.stat().st_size for path in files}
    there = Path(ray.get(keeper.room.remote(sum(sizes.values()))))
    under_way: deque[Any] = deque()
    for path in files:
        target = str(there / path.relative_to(folder))
        with path.open("rb") as file:
            for offset, length in pieces(sizes[path]):
                under_way.append(keeper.write.remote(target, offset, file.read(length)))
                if len(under_way) == _AT_ONCE:
                    ray.get(under_way.popleft())
    ray.get(list(under_way))
    return there


def fetch(keeper: Any, size: int, write: Callable[[Path], None], here: Path) -> None:
    """Have a file of about `size` bytes written where the actor is, and copy it to `here`."""
    import ray

    folder = ray.get(keeper.room.remote(size))
    there = f"{folder}/file"
    write(Path(there))
    under_way: deque[Any] = deque()
    with here.open("wb") as file:
        for offset, length in pieces(ray.get(keeper.size.remote(there))):
            under_way.append(keeper.read.remote(there, offset, length))
            if len(under_way) == _AT_ONCE:
                file.write(ray.get(under_way.popleft()))
        for piece in under_way:
            file.write(ray.get(piece))
    ray.get(keeper.remove.remote(folder))


def pieces(size: int) -> Iterator[tuple[int, int]]:
    """Yield where each piece of a file begins, and its length; an empty file has one, too."""
    for offset in range(0, max(size, 1), PIECE):
        yield offset, min(PIECE, size - offset)
