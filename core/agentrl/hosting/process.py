"""A process at the other end of two pipes, that can always be got rid of.

It leads a session of its own, so that killing its group takes everything it started with it. It is reaped
only after its group was killed: until then nobody else can have its number. Uses `subprocess.Popen` rather
than asyncio's subprocess, which knows the process only after an await that may be cancelled.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from agentrl.errors import AgentRLError
from agentrl.hosting import frames

_READ_AHEAD_BYTES = 1 << 20
_POLL_SECONDS = 0.01
# How long the rest of a dead process's stderr may take to arrive, and a killed process to be gone.
_STDERR_SECONDS = 1.0
_BURIAL_SECONDS = 5.0


class WorkerDied(AgentRLError):
    """A worker process ended, or never got ready, while an episode needed it."""


class Leash(Protocol):
    """What an env that plays by proxy asks of the process it plays in."""

    @property
    def alive(self) -> bool:
        """Return whether requests can be sent."""
        ...

    @property
    def pid(self) -> int | None:
        """Return the process's number, None where it has none yet."""
        ...

    async def start(self) -> None:
        """Start the process; if this fails or is cancelled, nothing is left behind."""
        ...

    async def exchange(self, request: bytes) -> frames.Message:
        """Send a packed request and return the reply, or raise `WorkerDied`."""
        ...

    async def stop(self, patience: float) -> None:
        """Let the process end by itself within `patience` seconds, then kill what is left."""
        ...

    def kill(self) -> None:
        """Kill the process and all it has started, at once."""
        ...

    async def bury(self, patience: float = 0.0) -> str:
        """Wait `patience` seconds for a natural end, kill what is left, and say how the process ended."""
        ...


class WorkerProcess:
    """A worker process, from its start to its burial."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Take what to run and its environment variables; nothing is started yet."""
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._stdin: asyncio.WriteTransport | None = None
        self._stdout: asyncio.StreamReader | None = None
        self._stderr = Tail()
        self._killed = False

    @property
    def alive(self) -> bool:
        """Return whether requests can be sent: it was started and neither died nor was killed."""
        if self._stdin is None or self._stdout is None:
            return False
        return not self._stdin.is_closing() and not self._stdout.at_eof()

    @property
    def pid(self) -> int | None:
        """Return the process's number, None before `start`."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Run the command. If this fails or is cancelled, nothing is left behind."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe,
            env=self._environment, start_new_session=True,
        )  # fmt: skip
        try:
            await self._connect(self._process)
        except BaseException:
            self.kill()
            raise

    async def exchange(self, request: bytes) -> frames.Message:
        """Send a packed request and return the reply. If this fails or is cancelled, the process is killed.

        Raises:
            WorkerDied: the process ended; the message says how, and its last words.
        """
        if self._stdin is None or self._stdout is None or not self.alive:
            raise WorkerDied(f"its worker process is gone: it {await self.bury()}")
        try:
            self._stdin.write(request)
            header = await self._stdout.readexactly(frames.HEADER_BYTES)
            return frames.unpack(await self._stdout.readexactly(frames.body_length(header)))
        except asyncio.IncompleteReadError as error:
            raise WorkerDied(f"its worker process {await self.bury(patience=1.0)}") from error
        except ValueError as error:
            self.kill()
            raise WorkerDied(f"its worker process was killed, for it broke the protocol: {error}") from error
        except BaseException:
            self.kill()
            raise

    async def stop(self, patience: float) -> None:
        """Let the process end by itself within `patience` seconds, then kill what is left."""
        if self._stdin is not None:
            self._stdin.close()
        await self.bury(patience)

    def kill(self) -> None:
        """Kill the process and all it has started, at once."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._killed = self._killed or not self._dead
            self._kill_group(self._process)
        self._close_pipes(self._process)

    async def bury(self, patience: float = 0.0) -> str:
        """Wait `patience` seconds for a natural end, kill what is left, and say how the process ended."""
        process = self._process
        if process is None:
            return "was never started"
        try:
            if await until(lambda: self._dead, patience) and process.returncode is None:
                self._kill_group(process)
                await until(lambda: self._stderr.closed, _STDERR_SECONDS)
        finally:
            self.kill()
        await until(lambda: process.poll() is not None, _BURIAL_SECONDS)
        return obituary(None if self._killed else process.returncode, self._stderr.text)

    @property
    def _dead(self) -> bool:
        """Return whether the process has ended, without reaping it where that can be helped."""
        if self._process is None or self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        try:
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self._process.pid, flags) is not None
        except ChildProcessError:  # somebody else has reaped it
            return True

    def _kill_group(self, process: "subprocess.Popen[bytes]") -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    async def _connect(self, process: "subprocess.Popen[bytes]") -> None:
        loop = asyncio.get_running_loop()
        self._stdout = asyncio.StreamReader(limit=_READ_AHEAD_BYTES)
        stdout = asyncio.StreamReaderProtocol(self._stdout)
        reading, _ = await loop.connect_read_pipe(lambda: stdout, process.stdout)
        self._transports.append(reading)
        errors, _ = await loop.connect_read_pipe(lambda: self._stderr, process.stderr)
        self._transports.append(errors)
        self._stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, process.stdin)
        self._transports.append(self._stdin)

    def _close_pipes(self, process: "subprocess.Popen[bytes]") -> None:
        for transport in self._transports:
            transport.close()
        unconnected = (process.stdout, process.stderr, process.stdin)[len(self._transports) :]
        for pipe in unconnected:
            if pipe is not None:
                pipe.close()


class Tail(asyncio.Protocol):
    """Keeps the end of what a process writes to stderr: enough for a traceback."""

    limit_bytes = 4000

    def __init__(self) -> None:
        """Begin with nothing."""
        self._kept = b""
        self.closed = False

    def data_received(self, data: bytes) -> None:
        """Keep the end."""
        self._kept = (self._kept + data)[-self.limit_bytes :]

    def connection_lost(self, error: Exception | None) -> None:
        """Note that nothing more will come."""
        self.closed = True

    @property
    def text(self) -> str:
        """Return the last lines; of a crash, those that matter."""
        lines = self._kept.decode("utf-8", "replace").strip().splitlines()
        # Python's report of a crash, unlike a traceback, begins with what matters.
        crash = _last(lines, "Fatal Python error")
        if crash is None:
            return "\n".join(lines[-12:])
        # Other threads come first, and may be many.
        current = _last(lines, "Current thread") or crash
        return "\n".join([lines[crash], *lines[max(crash + 1, current) :][:11]])


def _last(lines: Sequence[str], beginning: str) -> int | None:
    """Return the number of the last line that begins so."""
    return next((n for n in reversed(range(len(lines))) if lines[n].startswith(beginning)), None)


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds, `seconds` at most; return whether it does."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def obituary(returncode: int | None, last_words: str) -> str:
    """Return how a process ended; a `returncode` of None means that we have killed it."""
    if returncode is None:
        how = "did not end by itself and was killed"
    elif returncode >= 0:
        how = f"ended with exit code {returncode}"
    else:
        how = f"was killed by {signal.Signals(-returncode).name}"
        how += " (out of memory?)" if -returncode == signal.SIGKILL else ""
    return f"{how}; its last words:\n{last_words}" if last_words else how
