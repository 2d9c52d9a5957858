"""Which data is played: our own small world, AppWorld's own that was set up, or that in $APPWORLD_ROOT."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentrl.errors import UsageError
from agentrl.files import writing

from .inside.playground import GROUND_TRUTH, copy_without_truth, has_data

Wish = Literal["auto", "small", "real"]
MISSING = (
    "AppWorld's own data is not there: get it with `agentrl env setup appworld --data`, or set APPWORLD_ROOT"
)
ASKED = "env.world=small, which is all that the built-in model can do; env.world=real plays AppWorld's own"


@dataclass(frozen=True, slots=True)
class World:
    """Where a world's data is.

    Attributes:
        truth: folder whose data/ has the ground truth; the judge works there.
        play: folder whose data/ has none; episodes are played there.
        real: whether it is AppWorld's own.
    """

    truth: Path
    play: Path
    real: bool


def find_world(wish: Wish, files: Path) -> World:
    """Return the world that is wished for; "auto" takes AppWorld's own if it is there.

    Args:
        wish: which.
        files: what the set-up has left.

    Raises:
        UsageError: AppWorld's own is wished for and not there, or $APPWORLD_ROOT holds none.
    """
    given = os.environ.get("APPWORLD_ROOT")
    if wish != "small" and given:
        return _given(Path(given).absolute(), files)
    if wish != "small" and has_data(files / "real"):
        return World(files / "real", files / "real_play", real=True)
    if wish == "real":
        raise UsageError(MISSING)
    return World(files / "small", files / "small_play", real=False)


def _given(root: Path, files: Path) -> World:
    """Return the world of the user's own folder, in which nothing is written."""
    if not has_data(root):
        raise UsageError(
            f"APPWORLD_ROOT is {root}, which holds no data/ of AppWorld with its ground truth; correct it, "
            "or unset it"
        )
    folder = files / f"given-{_fingerprint(root / 'data')}"
    if not folder.is_dir():
        workshop = folder.with_name(f"{folder.name}-{os.getpid()}")
        with writing(workshop, "a copy of AppWorld's data"):
            shutil.rmtree(workshop, ignore_errors=True)
            copy_without_truth(root, workshop / "play")
            (workshop / "truth").mkdir()
            (workshop / "truth" / "data").symlink_to(root / "data")
            _move_in(workshop, folder)
    return World(folder / "truth", folder / "play", real=True)


def _move_in(workshop: Path, folder: Path) -> None:
    """Put a complete copy in its place; where another run was faster, its copy is as good."""
    try:
        workshop.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(workshop)


def _fingerprint(data: Path) -> str:
    """Return what changes with what is copied: the place, and the files' sizes and times."""
    hashed = hashlib.sha256(str(data).encode())
    for folder, below, files in os.walk(data):
        below[:] = sorted(name for name in below if name != GROUND_TRUTH)
        for name in sorted(files):
            found = os.stat(os.path.join(folder, name))
            hashed.update(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return hashed.hexdigest()[:12]
