"""Our side of the process that forks episodes in another virtual environment.

`worker` is what runs over there, and says how the two talk. The zygote kills episodes for us, since it
alone cannot mistake another process for one; only when it is dead itself do we kill what it has left.
"""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrl.errors import AgentRLError, UsageError
from agentrl.hosting import frames
from agentrl.hosting.process import Tail, WorkerDied, obituary, until

_POLL_SECONDS = 0.005
_STDERR_SECONDS = 0.2
_BURIAL_SECONDS = 5.0


@dataclass(slots=True)
class Ended:
    """How an episode's process ended; `returncode` is None where nobody knows."""

    returncode: int | None
    overdue: bool = False


@dataclass(slots=True)
class Fork:
    """A process that was asked for: its number over there, once it is known, and how it ended."""

    ended: "asyncio.Future[Ended]"
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Preload:
    """What to run over there.

    Attributes:
        title: of the env, for messages.
        command: runs the worker file.
        variables: its environment variables.
        folder: it works in.
        order: what it is told first.
        most_bytes: that each episode may send, all in all.
        seconds: how long it may take until it is ready.
    """

    title: str
    command: Sequence[str]
    variables: Mapping[str, str]
    folder: Path
    order: Mapping[str, Any]
    most_bytes: int
    seconds: float = 120.0


@dataclass(slots=True, eq=False)
class Zygote:
    """A process that has preloaded a plugin's worker module and forks one process for each episode."""

    preload: Preload
    _process: "subprocess.Popen[bytes] | None" = None
    _control: socket.socket | None = None
    _writer: asyncio.StreamWriter | None = None
    _errors: asyncio.BaseTransport | None = None
    _tail: Tail = field(default_factory=Tail)
    _ready: "asyncio.Future[None] | None" = None
    _listening: "asyncio.Task[None] | None" = None
    _forks: dict[int, Fork] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _own_pids: bool = False

    @property
    def alive(self) -> bool:
        """Return whether it can be asked for episodes."""
        if self._listening is None or self._writer is None or self._writer.is_closing():
            return False
        return not self._listening.done()

    @property
    def pid(self) -> int | None:
        """Return its process number, None before `start`."""
        return None if self._process is None else self._process.pid

    @property
    def last_words(self) -> str:
        """Return the end of what it has written."""
        return self._tail.text

    async def start(self) -> None:
        """Start it and wait until it has preloaded. If this fails or is cancelled, nothing is left behind.

        Raises:
            UsageError: the worker module cannot be imported, or its `preload` raised.
            WorkerDied: it ended, or was not ready in time.
        """
        seconds = self.preload.seconds
        try:
            async with asyncio.timeout(seconds):
                await self._start()
        except TimeoutError as error:
            end = await self._bury()
            raise WorkerDied(
                f"{self.preload.title} was not ready within {seconds:g} s; its worker {end}"
            ) from error
        except EOFError as error:
            end = await self._bury(1.0)
            raise WorkerDied(f"{self.preload.title} has no worker: it {end}") from error
        except BaseException:
            self.kill()
            raise

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._control = ours
            self._process = subprocess.Popen(
                self.preload.command, bufsize=0, stdin=theirs.fileno(), stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, env=self.preload.variables, cwd=self.preload.folder,
                start_new_session=True,
            )  # fmt: skip
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._errors, _ = await loop.connect_read_pipe(lambda: self._tail, self._process.stdout)
        self._ready = loop.create_future()
        self._listening = asyncio.create_task(self._listen(reader))
        self._writer.write(frames.pack(dict(self.preload.order)))
        await self._ready

    async def fork(self, files: Sequence[int]) -> tuple[int, Fork]:
        """Ask for a process that has `files`: its channel and its error output. Return its number.

        Raises:
            WorkerDied: the zygote is dead.
        """
        number = next(self._numbers)
        order = frames.pack({"fork": number})
        while self.alive and self._control is not None and self._writer is not None:
            if self._writer.transport.get_write_buffer_size() == 0:
                with suppress(BlockingIOError, OSError):
                    socket.send_fds(self._control, [order], list(files))
                    fork = self._forks[number] = Fork(asyncio.get_running_loop().create_future())
                    return number, fork
            await asyncio.sleep(_POLL_SECONDS)
        raise WorkerDied(f"the worker of {self.preload.title} is dead; its last words:\n{self.last_words}")

    def kill_episode(self, number: int) -> None:
        """Kill an episode's process and all it has started, at once; unknown ones are fine."""
        if number in self._forks and self.alive and self._writer is not None:
            self._writer.write(frames.pack({"kill": number}))

    def kill(self) -> None:
        """Kill the zygote and every episode, at once."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._abandon_episodes()
        self._close_pipes()

    async def close(self, patience: float = 3.0) -> None:
        """End the zygote, which ends every episode. May be called twice."""
        try:
            if self._writer is not None and not self._writer.is_closing():
                self._writer.write_eof()
            process = self._process
            await until(lambda: process is None or process.poll() is not None, patience)
        finally:
            self.kill()
        await self._bury()

    async def _bury(self, patience: float = 0.0) -> str:
        """Wait for a natural end, kill what is left, and say how it ended."""
        process = self._process
        if process is None:
            return "was never started"
        try:
            natural = await until(lambda: process.poll() is not None, patience)
            await until(lambda: self._tail.closed, _STDERR_SECONDS if natural else 0.0)
        finally:
            self.kill()
        await until(lambda: process.poll() is not None, _BURIAL_SECONDS)
        return obituary(process.returncode if natural else None, self.last_words)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                header = await reader.readexactly(frames.HEADER_BYTES)
                self._hear(frames.unpack(await reader.readexactly(frames.body_length(header))))
        except (asyncio.IncompleteReadError, OSError, ValueError, KeyError):
            return  # it is dead, or worth nothing any more
        finally:
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(EOFError())
            self._abandon_episodes()

    def _hear(self, message: frames.Message) -> None:
        if "ready" in message and self._ready is not None and not self._ready.done():
            # Within a sandbox with process numbers of its own we must not use those that we are told.
            self._own_pids = message["ready"] == self.pid
            self._ready.set_result(None)
        elif "failed" in message and self._ready is not None and not self._ready.done():
            self._ready.set_exception(_failure(self.preload.title, message["failed"]))
        elif "forked" in message and message["forked"] in self._forks:
            self._forks[message["forked"]].pid = message["pid"]
        elif "ended" in message:
            self._ended(message)

    def _ended(self, message: frames.Message) -> None:
        fork = self._forks.pop(message["ended"], None)
        if fork is not None and not fork.ended.done():
            code = os.waitstatus_to_exitcode(message["status"])
            fork.ended.set_result(Ended(code, message["overdue"]))

    def _abandon_episodes(self) -> None:
        """Kill what a dead zygote has left, for those who wait for an end."""
        for fork in self._forks.values():
            if fork.pid is not None and self._own_pids:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(fork.pid, signal.SIGKILL)
            if not fork.ended.done():
                fork.ended.set_result(Ended(None))
        self._forks.clear()

    def _close_pipes(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        elif self._control is not None:
            self._control.close()
        if self._errors is not None:
            self._errors.close()
        elif self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()


def _failure(title: str, error: Mapping[str, str]) -> AgentRLError:
    failure = UsageError(f"the worker of {title} could not be prepared: {error['message']}")
    failure.add_note(f"In the worker:\n{error['traceback']}")
    return failure
