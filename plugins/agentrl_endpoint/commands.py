"""Runs somebody's program as a process: the observation on stdin, the action on stdout.

The process finds the endpoint in `OPENAI_BASE_URL` and `OPENAI_API_KEY`, as official clients do; to act more
than once it posts `{"action": ...}` to `AGENTRL_STEP_URL` with the same key. It has a process group of its
own, which ends with it.
"""

import asyncio
import os
import signal
import tempfile
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from agentrl_endpoint.programs import Access, ProgramFailed, Step

# Seconds between asking a process to end and ending it.
GRACE = 2.0
LONGEST_REPLY = 1_000_000
LONGEST_COMPLAINT = 400


class Command:
    """A command as a program; started for every observation that the one before did not ask for itself."""

    def __init__(self, arguments: Sequence[str], access: Access, step: Step) -> None:
        """Take the command and its arguments; it steps through the endpoint."""
        self._arguments, self._access = arguments, access

    async def __call__(self, observation: str) -> object:
        """Return what the process writes to stdout.

        Raises:
            ProgramFailed: it cannot be started, ends with another exit code than 0, or writes too much.
        """
        file = tempfile.TemporaryFile
        # Files, not pipes: what the process leaves running may keep a pipe open.
        with file() as shown, file() as out, file() as err:
            shown.write(observation.encode("utf-8", "replace"))
            shown.seek(0)
            code = await self._run(shown, out, err)
            if code:
                raise ProgramFailed(f"the command ended with {_how(code)}: {_last(err)}")
            out.seek(0)
            reply = out.read(LONGEST_REPLY + 1)
        if len(reply) > LONGEST_REPLY:
            raise ProgramFailed(
                f"the command wrote more than {LONGEST_REPLY} bytes to stdout, in place of an action"
            )
        return reply.decode("utf-8", "replace").strip()

    async def _run(self, shown: IO[bytes], out: IO[bytes], err: IO[bytes]) -> int:
        """Return the exit code; the process and its group are gone then."""
        start = asyncio.create_subprocess_exec
        environment = {**os.environ, **variables(self._access)}
        try:
            process = await start(
                *self._arguments, stdin=shown, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        except OSError as error:
            raise ProgramFailed(f"the command {self._arguments[0]!r} cannot be started: {error}") from error
        try:
            return await process.wait()
        finally:
            await _end(process)


def variables(access: Access) -> Mapping[str, str]:
    """Return the environment variables that tell a process where the endpoint is."""
    direct = ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1")))
    return {
        "OPENAI_BASE_URL": access.base_url,
        "OPENAI_API_KEY": access.api_key,
        "AGENTRL_STEP_URL": f"{access.base_url}/step",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


async def _end(process: Process) -> None:
    """End the process, if it runs, and whatever it has left in its group."""
    try:
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=GRACE)
    finally:
        _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _how(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"signal {-code}"


def _last(errors: IO[bytes]) -> str:
    """Return the end of what was written to stderr."""
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - LONGEST_COMPLAINT))
    return errors.read().decode("utf-8", "replace").strip() or "it wrote nothing to stderr"
