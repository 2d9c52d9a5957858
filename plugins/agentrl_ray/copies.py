"""Which files of the run lie on which other nodes: a node gets them once, however many processes it keeps.

Who asks first is sent them. Who asks later links them into a folder of its own, so that they stay until the
last one lets go, whoever was first, however it ends.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl.scratch import make_folder, remove_folder
from agentrl_ray.transport import ship


@dataclass(frozen=True, slots=True)
class _Copy:
    """Files that were sent to a node: what they were here, and the folders there that have had them."""

    state: tuple[tuple[str, int, int, int], ...]
    places: tuple[str, ...] = ()


class Copies:
    """What was sent to which node; to be asked from any thread."""

    def __init__(self) -> None:
        """Have sent nothing yet."""
        self._copies: dict[tuple[str, Path], _Copy] = {}
        self._sending: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._looking = threading.Lock()

    def bring(self, folder: Path, node: str, keeper: Any) -> Path:
        """Return a folder of an actor on a node with the files of `folder`, which are sent if need be."""
        import ray

        with self._looking:
            sending = self._sending[node]
        with sending:
            copy = _Copy(_state(folder))
            known = self._copies.get((node, folder))
            if known is not None and known.state == copy.state:
                copy = known
            names = [name for name, *_ in copy.state]
            linked = ray.get(keeper.adopt.remote(copy.places, names)) if copy.places else None
            there = ship(keeper, folder) if linked is None else Path(linked)
            self._remember(node, folder, _Copy(copy.state, (*copy.places, str(there))))
        return there

    def _remember(self, node: str, folder: Path, copy: _Copy) -> None:
        """Note a copy, and forget those of what is no longer here."""
        with self._looking:
            self._copies = {key: known for key, known in self._copies.items() if key[1].exists()}
            self._copies[node, folder] = copy


def link(place: Path, names: Sequence[str]) -> Path | None:
    """Return a new folder with the files of these names that are in `place`; None if it has them no more."""
    if not place.is_dir():
        return None
    folder = make_folder("ray", beside=place)
    try:
        for name in names:
            os.makedirs((folder / name).parent, exist_ok=True)
            os.link(place / name, folder / name)
    except OSError:  # gone meanwhile with who had them, and to be sent again
        remove_folder(folder)
        return None
    return folder


def _state(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return the files of a folder, and what of each changes when it is another one."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    known = ((str(path.relative_to(folder)), path.stat()) for path in files)
    return tuple((name, found.st_ino, found.st_size, found.st_mtime_ns) for name, found in known)
