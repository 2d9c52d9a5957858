"""The parent's side of a worker: an env that plays in another process, and the errors it can raise."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agentrl.errors import AgentRLError, UsageError
from agentrl.hosting import codec, frames
from agentrl.hosting.process import Leash, WorkerDied, WorkerProcess
from agentrl.interfaces import Env, Expert
from agentrl.types import Action, Observation, Outcome, Task

# How long a worker that was told to end may run its exit handlers, in seconds.
_EXIT_SECONDS = 2.0


class EnvRaised(AgentRLError):
    """An env in a worker raised an exception; a note holds its traceback."""


class WorkerEnv(Env):
    """An env that plays by proxy. It only plays: tasks and demonstrations are asked of the env itself.

    An operation that is cancelled, by a time-out for example, kills the worker; so does one that
    breaks the protocol. `alive` tells.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        close_seconds: float = 10.0,
        process: Leash | None = None,
    ) -> None:
        """Take which env to host; nothing is started yet.

        Args:
            name: of the env's entry point, or "module:Class".
            options: of the env's `Config`, JSON-safe.
            close_seconds: how long the env's `close` may take before the worker is killed.
            process: that hosts the env; None for one with this Python.
        """
        super().__init__()
        self.name = name
        self._options = options
        self._close_seconds = close_seconds
        command = [sys.executable, "-P", "-u", "-m", "agentrl.hosting.worker"]
        self._process: Leash = process or WorkerProcess(command, _environment())
        self._requests = 0
        self._busy = False

    @property
    def alive(self) -> bool:
        """Return whether the worker can be asked to play."""
        return self._process.alive

    @property
    def pid(self) -> int | None:
        """Return the worker's process number, None before `start`."""
        return self._process.pid

    async def start(self, seconds: float = 120.0) -> None:
        """Start the worker and make the env. If this fails or is cancelled, nothing is left behind.

        Raises:
            UsageError: the env cannot be found, imported or made.
            WorkerDied: the worker ended, or was not ready within `seconds`.
        """
        hello = {
            "env": self.name,
            "options": dict(self._options),
            "python_path": os.environ.get("PYTHONPATH"),
        }
        try:
            async with asyncio.timeout(seconds):
                await self._process.start()
                await self._ask("start", hello)
        except TimeoutError as error:
            end = await self._process.bury()
            raise WorkerDied(f"{self._title} was not ready within {seconds:g} s; its worker {end}") from error
        except BaseException:
            await self._process.bury()
            raise

    def tasks(self, split: str) -> Sequence[Task]:
        """Refuse: a worker only plays."""
        raise UsageError(f"{self._title} in a worker only plays; ask an env in this process for its tasks")

    def demonstrate(self, task: Task) -> Sequence[str] | Expert | None:
        """Refuse: a worker only plays."""
        raise UsageError(f"{self._title} in a worker only plays; ask an env in this process to demonstrate")

    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode in the worker."""
        reply = await self._ask("reset", {"task": codec.task_to_json(task), "seed": seed})
        return codec.observation_from_json(reply, self._origin("reset"))

    async def step(self, action: Action) -> Observation:
        """Apply `action` in the worker."""
        reply = await self._ask("step", {"action": codec.action_to_json(action)})
        return codec.observation_from_json(reply, self._origin("step"))

    async def judge(self) -> Outcome:
        """Return what the env in the worker judges."""
        return codec.outcome_from_json(await self._ask("judge", {}), self._origin("judge"))

    async def close(self) -> None:
        """Close the env and end the worker, if need be by killing it. May be called twice."""
        try:
            if self.alive and not self._busy:
                await self._close_gently()
        finally:
            self.kill()
        await self._process.bury()

    def kill(self) -> None:
        """Kill the worker and all it has started, at once."""
        self._process.kill()

    async def _close_gently(self) -> None:
        try:
            async with asyncio.timeout(self._close_seconds):
                await self._ask("close", {})
            await self._process.stop(_EXIT_SECONDS)
        except (TimeoutError, AgentRLError):
            return  # an env that cannot close is killed; its episode is over

    async def _ask(self, operation: str, arguments: frames.Message) -> Any:
        """Return the result of an operation.

        Raises:
            UsageError: the env could not be made, or the arguments are not JSON-safe.
            EnvRaised: the env raised.
            Nonsense: the env returned what no env may return.
            WorkerDied: the worker died.
        """
        if self._busy:
            raise AgentRLError(f"{self._title} was asked to {operation} before it had answered")
        self._requests += 1
        request = self._pack({"id": self._requests, "operation": operation, "arguments": arguments})
        self._busy = True
        try:
            reply = await self._process.exchange(request)
        except WorkerDied as error:
            raise WorkerDied(f"{self._title}, operation {operation}: {error}") from error
        finally:
            self._busy = False
        return self._result(reply, operation)

    def _pack(self, request: frames.Message) -> bytes:
        try:
            return frames.pack(request)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{self._title} cannot be sent its {request['operation']}, which is not JSON-safe: {error}; "
                "tasks, options and actions hold only text, numbers, lists, and mappings with text as keys"
            ) from error

    def _result(self, reply: frames.Message, operation: str) -> Any:
        if reply.get("id") != self._requests or ("result" in reply) == ("error" in reply):
            self.kill()
            raise WorkerDied(
                f"{self._title}, operation {operation}: the worker broke the protocol and was killed"
            )
        if "result" in reply:
            return reply["result"]
        raise _error(reply["error"])

    @property
    def _title(self) -> str:
        return f"env {self.name!r}"

    def _origin(self, operation: str) -> str:
        return f"{operation} of {self._title}"


def _error(error: Mapping[str, str]) -> AgentRLError:
    """Return the exception that a worker reports."""
    kinds = {"usage": UsageError, "nonsense": codec.Nonsense}
    exception = kinds.get(error["kind"], EnvRaised)(error["message"])
    if error["traceback"]:
        exception.add_note(f"In the worker:\n{error['traceback']}")
    return exception


def _environment() -> dict[str, str]:
    """Return the variables of a worker: it finds the modules that this process finds."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {
        "PYTHONHASHSEED": "0",  # the same episode in every worker, also where an env walks over a set
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",  # the workers share the machine with one another and with the model
    }
