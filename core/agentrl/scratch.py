"""Folders for what processes hand to one another, in memory where there is room.

A maker that is killed cannot clean up, and what it leaves may be a whole model in memory. So beside each
folder lies a hidden file that its maker keeps locked, and whoever makes another folder deletes those whose
lock nobody has. (A lock is also seen from another container that shares the memory, where process ids mean
others.)
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentrl.machine import shared_memory

_PREFIX, _LOCK = "agentrl-", ".kept"
_held: dict[Path, int] = {}


def make_folder(what: str, size: int = 0, *, beside: Path | None = None) -> Path:
    """Return a new folder, in memory if there is room for `size` bytes, or `beside` another one of ours.

    `what` it is for is in its name.
    """
    place = shared_memory(size) if beside is None else beside.parent
    sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{what}-", dir=place))
    not_yet = folder.with_name(f"{_lock_of(folder).name}-not-yet")
    lock = os.open(not_yet, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    not_yet.rename(_lock_of(folder))
    _held[folder] = lock
    return folder


def remove_folder(folder: Path) -> None:
    """Delete a folder that `make_folder` has made; one that is gone is no error."""
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)
    if folder in _held:
        os.close(_held.pop(folder))


@contextmanager
def scratch(what: str, size: int = 0) -> Iterator[Path]:
    """Yield a new folder, see `make_folder`, which is then deleted."""
    folder = make_folder(what, size)
    try:
        yield folder
    finally:
        remove_folder(folder)


def sweep() -> list[Path]:
    """Delete and return the folders of ours whose maker is gone."""
    places = {Path(tempfile.gettempdir()), *filter(None, [shared_memory(0)])}
    locks = [lock for place in places for lock in place.glob(f".{_PREFIX}*{_LOCK}") if _is_left(lock)]
    left = [lock.with_name(lock.name[1 : -len(_LOCK)]) for lock in locks]
    for folder in left:
        remove_folder(folder)
    return left


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_LOCK}")


def _is_left(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:  # somebody else's, or gone meanwhile
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
