"""The actor that keeps one process of a trainer or engine on its node.

It starts the process just as it would be started on the machine of the run, and passes on what is said: so
neither knows of Ray. When the actor dies, the process's connection ends, and with it the process.

Calls come side by side, each in a thread of its own: one that tells, one that waits to hear, and others.
"""

import os
import queue
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from agentrl.scratch import make_folder, remove_folder
from agentrl_ray.copies import link
from agentrl_ray.network import interface_of
from agentrl_ray.visiting import Visit, prepare
from agentrl_ray.wire import Wire, pair

# Bytes after which no more messages are added to a batch.
BATCH = 8 * 2**20
# How many calls of the actor may be under way.
SIDE_BY_SIDE = 8


@dataclass(frozen=True, slots=True)
class Order:
    """A process to start: `python -m MODULE`, with environment variables besides the node's."""

    visit: Visit
    module: str
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Born:
    """Where a process is: its node's id and address, and its number there."""

    node: str
    address: str
    pid: int


class Keeper:
    """Keeps a process."""

    def __init__(self) -> None:
        """Have nothing yet."""
        self._inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._last: deque[str] = deque(maxlen=20)
        self._folders: list[str] = []

    def begin(self, order: Order) -> Born:
        """Start the process.

        Raises:
            UsageError: the node is not fit for it.
        """
        import ray

        address = ray.util.get_node_ip_address()
        prepare(order.visit, address)
        self._wire, there = pair()
        self._process = _start(order, there, address)
        threading.Thread(target=self._receive, args=(self._wire,), daemon=True).start()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        return Born(ray.get_runtime_context().get_node_id(), address, self._process.pid)

    def tell(self, messages: list[bytes]) -> None:
        """Pass messages on to the process; that it is gone, `hear` says."""
        try:
            for message in messages:
                self._wire.connection.send_bytes(message)
        except OSError:
            return

    def hear(self) -> list[bytes] | str:
        """Wait for messages of the process and return them; at its end, how it ended."""
        message = self._inbox.get()
        if message is None:
            return self._epitaph()
        batch, size = [message], len(message)
        while size < BATCH and not self._inbox.empty():
            message = self._inbox.get()
            if message is None:
                self._inbox.put(None)
                break
            batch.append(message)
            size += len(message)
        return batch

    def hang_up(self) -> None:
        """End the process's connection, and with it the process."""
        self._wire.hang_up()

    def end(self, patience: float) -> None:
        """Wait for the process to end by itself, and then no longer; leave nothing behind."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._clear()

    def free_port(self) -> int:
        """Return a port of this node that nobody listens at now."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port: int = probe.getsockname()[1]
            return port

    def room(self, size: int) -> str:
        """Return a new folder with room for so many bytes, in memory if it can be; those before are gone."""
        self._clear()
        self._folders.append(str(make_folder("ray", size)))
        return self._folders[-1]

    def adopt(self, places: Sequence[str], names: Sequence[str]) -> str | None:
        """Return a new folder with files that one of these places on this node has; None if none has them.

        As with `room`, those before are gone.
        """
        linked = next(filter(None, (link(Path(place), names) for place in reversed(places))), None)
        if linked is None:
            return None
        self._clear()
        self._folders.append(str(linked))
        return self._folders[-1]

    def write(self, path: str, offset: int, data: bytes) -> None:
        """Write a part of a file; its folder is made if need be."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while data:
                written = os.pwrite(descriptor, data, offset)
                data, offset = data[written:], offset + written
        finally:
            os.close(descriptor)

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Return a part of a file."""
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def size(self, path: str) -> int:
        """Return how many bytes a file has."""
        return os.stat(path).st_size

    def remove(self, folder: str) -> None:
        """Delete what `room` has returned."""
        if folder in self._folders:
            self._folders.remove(folder)
            remove_folder(Path(folder))

    def _clear(self) -> None:
        while self._folders:
            remove_folder(Path(self._folders.pop()))

    def _epitaph(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"was killed by signal {-code}"
        self._reading.join(1.0)
        words = f" ({self._last[-1]})" if code and self._last else ""
        return f"ended with exit code {code}{words}"

    def _receive(self, wire: Wire) -> None:
        try:
            while True:
                self._inbox.put(wire.connection.recv_bytes())
        except (EOFError, OSError):
            self._inbox.put(None)

    def _read(self) -> None:
        """Keep the last lines of what the process prints, and leave all of it to Ray's logs."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._last.append(text)
                print(text, flush=True)


def _start(order: Order, there: Connection, address: str) -> "subprocess.Popen[bytes]":
    """Start the process with its end of a connection, in the folder of the run if there is one here."""
    descriptor = there.fileno()
    interface = interface_of(address)
    # What Ray was started with on this node wins.
    meeting = {"GLOO_SOCKET_IFNAME": interface} if interface else {}
    folder = order.visit.folder if Path(order.visit.folder).is_dir() else None
    try:
        return subprocess.Popen(
            [sys.executable, "-m", order.module, str(descriptor)],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**meeting, **os.environ, **order.variables},
            cwd=folder,
        )
    finally:
        there.close()
