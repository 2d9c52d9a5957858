"""An episode's process in another virtual environment, from its fork to its burial."""

import asyncio
import os
import socket

from agentrl.hosting import frames
from agentrl.hosting.elsewhere.zygote import Fork, Zygote
from agentrl.hosting.process import Tail, WorkerDied, obituary, until

_READ_AHEAD_BYTES = 1 << 20
_STDERR_SECONDS = 1.0
_BURIAL_SECONDS = 5.0


class EpisodeProcess:
    """A process that was forked for one episode. Behaves as a `WorkerProcess` does."""

    def __init__(self, zygote: Zygote) -> None:
        """Take who forks it; nothing is started yet."""
        self._zygote = zygote
        self._number = -1
        self._fork: Fork | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._errors: asyncio.BaseTransport | None = None
        self._stderr = Tail()
        self._killed = False
        self._said_bytes = 0

    @property
    def alive(self) -> bool:
        """Return whether requests can be sent: it was started and neither died nor was killed."""
        if self._reader is None or self._writer is None or self._killed:
            return False
        return not self._writer.is_closing() and not self._reader.at_eof()

    @property
    def pid(self) -> int | None:
        """Return the process's number, None before it is known."""
        return None if self._fork is None else self._fork.pid

    async def start(self) -> None:
        """Have it forked. If this fails or is cancelled, nothing is left behind.

        Raises:
            WorkerDied: there is nobody to fork it.
        """
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        errors = os.fdopen(read, "rb", buffering=0)
        try:
            try:
                self._number, self._fork = await self._zygote.fork([theirs.fileno(), write])
            finally:
                theirs.close()
                os.close(write)
            loop = asyncio.get_running_loop()
            self._errors, _ = await loop.connect_read_pipe(lambda: self._stderr, errors)
            self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=_READ_AHEAD_BYTES)
        except BaseException:
            self.kill()
            ours.close()
            errors.close()
            raise

    async def exchange(self, request: bytes) -> frames.Message:
        """Send a packed request and return the reply. If this fails or is cancelled, the process is killed.

        Raises:
            WorkerDied: the process ended; the message says how, and its last words.
        """
        if self._reader is None or self._writer is None or not self.alive:
            raise WorkerDied(f"its process is gone: it {await self.bury()}")
        try:
            self._writer.write(request)
            length = frames.body_length(await self._reader.readexactly(frames.HEADER_BYTES))
            self._count(length)
            return frames.unpack(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise WorkerDied(f"its process {await self.bury(patience=1.0)}") from error
        except ValueError as error:
            self.kill()
            raise WorkerDied(f"its process was killed, for it broke the protocol: {error}") from error
        except BaseException:
            self.kill()
            raise

    def _count(self, length: int) -> None:
        """Keep an episode from filling our memory.

        Raises:
            ValueError: it says too much.
        """
        self._said_bytes += length
        most = self._zygote.preload.most_bytes
        if self._said_bytes > most:
            raise ValueError(f"it sends {self._said_bytes} bytes; its environment's said_mb allows {most}")

    async def stop(self, patience: float) -> None:
        """Let the process end by itself within `patience` seconds, then kill what is left."""
        if self._writer is not None and self._writer.can_write_eof():
            self._writer.write_eof()
        await self.bury(patience)

    def kill(self) -> None:
        """Kill the process and all it has started, at once."""
        if self._fork is not None and not self._fork.ended.done():
            self._killed = True
            self._zygote.kill_episode(self._number)
        if self._writer is not None:
            self._writer.transport.abort()
        if self._errors is not None:
            self._errors.close()

    async def bury(self, patience: float = 0.0) -> str:
        """Wait `patience` seconds for a natural end, kill what is left, and say how the process ended."""
        fork = self._fork
        if fork is None:
            return "was never started"
        try:
            if await until(fork.ended.done, patience) and not self._killed:
                await until(lambda: self._stderr.closed, _STDERR_SECONDS)
        finally:
            self.kill()
        if not await until(fork.ended.done, _BURIAL_SECONDS):
            self._zygote.kill()  # it does not answer: nobody else can end what it has begun
            return "did not end, and was killed with all others of its worker"
        ended = fork.ended.result()
        if ended.overdue:
            return "was killed, for the episode took longer than its environment's episode_seconds"
        if ended.returncode is None and not self._killed:
            return f"was lost when its worker died; the worker's last words:\n{self._zygote.last_words}"
        return obituary(None if self._killed else ended.returncode, self._stderr.text)
