"""What a node has to be like so that a part of a run can live there, and what is looked at."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentrl import __version__
from agentrl.errors import UsageError

# Files of which one is in every folder that all nodes have to see: run directories, models.
_LANDMARKS = ("run.yaml", "config.json")


@dataclass(frozen=True, slots=True)
class Landmark:
    """A file that a node has to see just as the run does; `what` is what its folder is called."""

    what: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Visit:
    """What a node is told of the run.

    Attributes:
        version: of agentrl.
        folder: that the run works in.
        modules: where its modules are found.
        landmarks: files that the node has to see.
    """

    version: str
    folder: str
    modules: tuple[str, ...]
    landmarks: tuple[Landmark, ...] = ()


def invite(folders: Mapping[str, Path]) -> Visit:
    """Return what to tell nodes; `folders` are those that they have to see."""
    found = (
        Landmark(what, str(folder / name), (folder / name).stat().st_size)
        for what, folder in folders.items()
        for name in _LANDMARKS
        if (folder / name).is_file()
    )
    modules = tuple(folder or os.getcwd() for folder in sys.path)
    return Visit(__version__, os.getcwd(), modules, tuple(found))


def prepare(visit: Visit, address: str) -> None:
    """See to it that this node, which has that address, is fit, and finds the modules of the run.

    Raises:
        UsageError: it is not fit.
    """
    if visit.version != __version__:
        raise UsageError(
            f"the node {address} has agentrl {__version__}, and the run {visit.version}; install the same"
        )
    for landmark in visit.landmarks:
        if not _sees(landmark):
            raise UsageError(
                f"the node {address} does not see the {landmark.what} {Path(landmark.path).parent}; put it "
                "where all nodes have the same files, such as on a network file system"
            )
    # Behind the node's own: packages may lie elsewhere here.
    sys.path += [folder for folder in visit.modules if folder not in sys.path and os.path.isdir(folder)]


def _sees(landmark: Landmark) -> bool:
    try:
        return os.stat(landmark.path).st_size == landmark.size
    except OSError:
        return False
