"""A connection that may be ended from any thread while others wait in it."""

import os
import socket
from contextlib import suppress
from multiprocessing.connection import Connection


class Wire:
    """Our end of two connected sockets that carry messages."""

    def __init__(self, end: socket.socket) -> None:
        """Take the socket."""
        self._socket = end
        self.connection = Connection(os.dup(end.fileno()))

    def hang_up(self) -> None:
        """End the connection: whoever waits at either end wakes up. May be called twice."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it, once nobody waits in it any more."""
        self.hang_up()
        self._socket.close()
        self.connection.close()


def pair() -> tuple[Wire, Connection]:
    """Return our end and the other one."""
    ours, theirs = socket.socketpair()
    return Wire(ours), Connection(theirs.detach())
