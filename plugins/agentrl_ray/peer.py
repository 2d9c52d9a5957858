"""A process on a node of the cluster, as the process of the run sees it: a connection like any other.

Two threads pass messages on: one to the actor that keeps the process, one from it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agentrl.errors import AgentRLError
from agentrl.runtime import Peer
from agentrl.scratch import scratch
from agentrl_ray.cluster import Cluster
from agentrl_ray.copies import Copies
from agentrl_ray.keeper import BATCH, Born
from agentrl_ray.transport import fetch
from agentrl_ray.wire import pair

# Seconds for what an actor that is alive does at once.
_GRACE = 10.0


class RayPeer(Peer):
    """A process that an actor keeps."""

    # That a node does not answer any more Ray believes only after a while.
    hindsight = 20.0

    def __init__(
        self, keeper: Any, born: Born, threads: int | None, cluster: Cluster, copies: Copies
    ) -> None:
        """Take the actor, where it is, how many threads its process may keep busy, and what nodes have."""
        self._keeper = keeper
        self._born = born
        self._cluster = cluster
        self._copies = copies
        self._how = ""
        self._ended = threading.Event()
        self._over = False
        self._wire, self.connection = pair()
        self.pid = born.pid
        self.threads = threads
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._tell, self._hear)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> str:
        """Return the address of its node."""
        return self._born.address

    def free_port(self) -> int:
        """Return a port of its node that nobody listens at now.

        Raises:
            EOFError: the process is gone.
        """
        import ray

        with self._living():
            port: int = ray.get(self._keeper.free_port.remote())
            return port

    def epitaph(self) -> str:
        """Wait for the end of the process, and return how it ended and where."""
        self._ended.wait()
        return self._how

    def end(self, patience: float) -> None:
        """Wait for the process to end by itself, and then no longer; end the actor."""
        import ray

        if self._over:
            return
        self._over = True
        with suppress(ray.exceptions.RayError):  # it may be dead already, or not answer
            ray.get(self._keeper.end.remote(patience), timeout=patience + _GRACE)
            self._ended.wait(_GRACE)
        ray.kill(self._keeper)
        self._wire.hang_up()
        for thread in self._threads:
            thread.join(_GRACE)

    def deliver(self, folder: Path) -> Path:
        """Return where the process finds the files of `folder`: there, if it is on this machine, or a copy.

        Processes of one node have one copy between them.

        Raises:
            EOFError: the process is gone.
        """
        if self._near:
            return folder
        with self._living():
            return self._copies.bring(folder, self._born.node, self._keeper)

    @contextmanager
    def received(self, size: int, write: Callable[[Path], None]) -> Iterator[Path]:
        """Have a file written over there, and yield where it is here; then it is gone.

        Raises:
            EOFError: the process is gone.
        """
        if self._near:
            with super().received(size, write) as path:
                yield path
            return
        with scratch("weights", size) as folder:
            with self._living():
                fetch(self._keeper, size, write, folder / "file")
            yield folder / "file"

    @property
    def _near(self) -> bool:
        return self._born.node == self._cluster.here

    @contextmanager
    def _living(self) -> Iterator[None]:
        import ray

        try:
            yield
        except ray.exceptions.RayTaskError as error:
            said = f"{type(error.cause).__name__}: {error.cause}"
            raise AgentRLError(f"a file could not be handed over at {self._born.address}: {said}") from error
        except ray.exceptions.RayError as error:
            raise EOFError(self.epitaph()) from error

    def _tell(self) -> None:
        """Pass on what the run says, until it hangs up."""
        import ray

        connection = self._wire.connection
        try:
            while True:
                batch = [connection.recv_bytes()]
                while sum(map(len, batch)) < BATCH and connection.poll(0):
                    batch.append(connection.recv_bytes())
                ray.get(self._keeper.tell.remote(batch))
        except (EOFError, OSError):
            self._keeper.hang_up.remote()
        except ray.exceptions.RayError:  # who hears says so
            return

    def _hear(self) -> None:
        """Pass on what the process says, until it ends."""
        import ray

        born, keeper = self._born, self._keeper
        try:
            while not isinstance(heard := ray.get(keeper.hear.remote()), str):
                for message in heard:
                    with suppress(OSError):  # nobody is there any more, but the end is still to be told
                        self._wire.connection.send_bytes(message)
            self._how = f"{heard} on the node {born.address}"
        except ray.exceptions.RayError:
            self._wire.hang_up()
            self._how = "was ended" if self._over else self._cluster.loss(keeper, born.node, born.address)
        finally:
            self._wire.hang_up()
            self._ended.set()
