"""Where the processes of a run live: what whoever needs processes asks of a runtime.

A trainer or an engine that works in processes of its own says how many (`Crew`), describes each as a
`Program`, and gets a `Peer` for it: a connection, and how the process ended. Envs that play in workers are
described by a `hosting.housing.Housing`, and become a pool. On which machine all of them are, and with which
GPUs, is for the runtime alone to know.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agentrl.interfaces import Crew, Plugin
from agentrl.scratch import scratch

if TYPE_CHECKING:
    from agentrl.hosting.housing import Housing
    from agentrl.hosting.pool import EnvPool

Role = Literal["trainer", "engine"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is going to need, said before anything is started.

    Attributes:
        trainer: processes of the trainer.
        engine: processes of the engine.
        workers: envs that play in workers, side by side.
        device: of the run: "cpu", "cuda" or "cuda:N".
        folders: that all processes have to see, by what they are called in messages.
    """

    trainer: Crew = field(default_factory=Crew)
    engine: Crew = field(default_factory=Crew)
    workers: int = 0
    device: str = "cpu"
    folders: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """A process to start: `python -m MODULE DESCRIPTOR`.

    The descriptor is that of a file for `multiprocessing.connection.Connection`. When the connection ends, so
    must the process, whatever it is doing.

    Attributes:
        module: what to run.
        role: whose process it is.
        number: which of those it is, from 0.
        device: of the run; where it is a GPU, it is the first that the processes of this role get.
        gpus: that the process needs, where the device is one. It sees no others: its own begin at "cuda:0".
        variables: environment variables that it has besides those of the run.
    """

    module: str
    role: Role
    number: int
    device: str = "cpu"
    gpus: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def own_device(self) -> str:
        """Return the process's device as it sees it."""
        return "cuda:0" if self.device.startswith("cuda") else self.device


class Peer(ABC):
    """A process that was started, and what leads to it.

    Here files are where the process can read and write them; a runtime with other machines carries them.

    Attributes:
        connection: to the process; it ends when the process does.
        pid: its number, on whatever machine it is.
        threads: that it may keep busy; None for its part of the run's.
        hindsight: seconds after its end until that is known here.
    """

    connection: Connection
    pid: int
    threads: int | None = None
    hindsight: float = 2.0

    @abstractmethod
    def epitaph(self) -> str:
        """Wait for the end of a process whose connection has ended; return how it ended: "was killed..."."""

    @abstractmethod
    def end(self, patience: float) -> None:
        """Wait so many seconds for the process to end by itself, and then no longer. May be called twice."""

    def deliver(self, folder: Path) -> Path:
        """Return where the process finds the files of `folder`: until the next are delivered, or its end.

        Raises:
            EOFError: the process is gone; the message says how.
        """
        return folder

    @contextmanager
    def received(self, size: int, write: Callable[[Path], None]) -> Iterator[Path]:
        """Have a file of about `size` bytes written over there, and yield where it is here; then it is gone.

        It is kept in memory where there is room.

        Args:
            size: in bytes.
            write: tells the process where to write, and comes back when that is done.

        Raises:
            EOFError: the process is gone; the message says how.
        """
        with scratch("weights", size) as folder:
            path = folder / "file"
            write(path)
            yield path


class Runtime(Plugin, ABC):
    """Where the processes of a run live."""

    @property
    def colocates(self) -> bool:
        """Whether engine N is on the GPU of the trainer's rank N, as far as there are both."""
        return True

    def start(self, plan: Plan) -> None:
        """Get ready. Called once, before anything else.

        Raises:
            UsageError: there is no room for what is planned.
        """

    @abstractmethod
    def launch(self, programs: Sequence[Program]) -> list[Peer]:
        """Start processes that work together; all of them or, if this fails, none.

        Raises:
            UsageError: there is no room for them.
        """

    @abstractmethod
    def meeting(self, peers: Sequence[Peer]) -> AbstractContextManager[str]:
        """Return for how long there is a place at which these can meet: PyTorch's `init_method`."""

    def pool(self, housing: "Housing") -> "EnvPool":
        """Return envs in workers; here, in processes of this machine."""
        return housing.open()

    def close(self) -> None:
        """End what is left. May be called twice, and without `start`."""
