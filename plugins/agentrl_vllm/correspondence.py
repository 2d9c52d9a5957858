"""Questions to one worker and its answers, for coroutines."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from agentrl.errors import AgentRLError
from agentrl_vllm.links import Link
from agentrl_vllm.messages import Answer, Cancel, Cargo, Load, Task

_CLOSED = "the engine was closed while it was in use"


class Died(Exception):
    """The worker is gone and with it all that was asked of it; the text says why."""


class Correspondence:
    """A worker from its start to its end; another start is another correspondence."""

    def __init__(self, connect: Callable[[Callable[[Answer], None]], Link]) -> None:
        """Start the worker with `connect`, which is told whom to give the answers."""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._started: Future[Any] = Future()
        self._waiting: dict[int, Future[Any]] = {0: self._started}
        self._died: str | None = None
        self.link = connect(self._answered)

    async def started(self) -> None:
        """Wait until the worker is ready.

        Raises:
            Died: it could not start.
        """
        await asyncio.wrap_future(self._started)

    async def send(self, task: Callable[[int], Task]) -> Any:
        """Send the task, made with its number, and return the answer; cancelling this cancels the task.

        Raises:
            Died: there will be no answer.
            AgentRLError: it cannot be done.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._died is not None:
                raise Died(self._died)
            number = next(self._numbers)
            self._waiting[number] = future
        self.link.post(task(number))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self.link.post(Cancel(number))
            raise
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    async def load(self, cargo: Cargo) -> None:
        """Have the worker load weights, and wait until it has.

        Raises:
            Died: it is gone.
            AgentRLError: it cannot be done.
        """
        try:
            there = await asyncio.to_thread(self.link.deliver, cargo)
        except EOFError as error:
            raise Died(self._died or str(error)) from error
        await self.send(lambda number: Load(number, there))

    async def close(self) -> None:
        """End the worker; whoever waits for an answer is told."""
        self._fail(AgentRLError(_CLOSED), _CLOSED)
        await asyncio.to_thread(self.link.close)

    def _answered(self, answer: Answer) -> None:
        """Take an answer, in a thread of the link."""
        if answer.fatal:
            reason = answer.error or "it ended"
            self._fail(Died(reason), reason)
            return
        with self._lock:
            future = self._waiting.pop(answer.number, None)
        # Nobody may be waiting any more, because the task was cancelled.
        if future is None or not future.set_running_or_notify_cancel():
            return
        if answer.error is None:
            future.set_result(answer.value)
        else:
            future.set_exception(AgentRLError(answer.error))

    def _fail(self, error: Exception, reason: str) -> None:
        with self._lock:
            self._died = self._died or reason
            waiting, self._waiting = list(self._waiting.values()), {}
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
