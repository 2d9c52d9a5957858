"""The asynchronous half of the engine: collects requests, lets one thread work on them, hands out results.

Continuous batching: requests that arrive while a forward is running join at the next one, and nobody waits
for a slow env. Yet where every env is in this process and answers at once, the composition of each batch
is the same in every run, which exact resume needs: before the thread is given work, the event loop is let
run until no new request comes, and requests are taken in the order of their sessions' names.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from agentrl.errors import AgentRLError
from agentrl_torch.generation import Generator
from agentrl_torch.sequences import Request

_T = TypeVar("_T")

# So many passes of the event loop without a new request mean that all envs that answer at once have answered.
_QUIET_PASSES = 50


@dataclass(eq=False, slots=True)
class _Job:
    """A function that must run while no request is in work."""

    function: Callable[[], None]
    future: "asyncio.Future[None]"


class Scheduler:
    """Stands between the callers of `generate` and the thread that generates."""

    def __init__(self, generator: Generator, executor: ThreadPoolExecutor) -> None:
        """Take the generator, and an executor that has one thread."""
        self._generator = generator
        self._executor = executor
        self._arrived: list[Request] = []
        self._futures: dict[Request, asyncio.Future[None]] = {}
        self._released: list[str] = []
        self._jobs: list[_Job] = []
        self._news = False
        self._task: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> None:
        """Return when `request` is done; cancelling this frees its row."""
        future = asyncio.get_running_loop().create_future()
        self._futures[request] = future
        self._arrived.append(request)
        self._wake()
        try:
            await future
        except asyncio.CancelledError:
            request.cancelled = True
            self._news = True
            raise
        finally:
            self._futures.pop(request, None)

    async def run_alone(self, function: Callable[[], None]) -> None:
        """Run `function` in the thread once the requests in work are done; later ones wait for it."""
        job = _Job(function, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._wake()
        await job.future

    def release(self, session: str) -> None:
        """Forget a session before the next request is looked at."""
        self._released.append(session)

    async def close(self) -> None:
        """Give up all requests and jobs; may be called twice."""
        self._news = True
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        closed = AgentRLError("the engine was closed while it was in use")
        self._fail(list(self._futures), closed)
        for job in self._jobs:
            _set_exception(job.future, closed)
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _wake(self) -> None:
        self._news = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._arrived or self._jobs or self._generator.busy:
                await self._settle()
                self._news = False
                if self._jobs and not self._generator.busy:
                    await self._run_job(self._jobs.pop(0))
                else:
                    await self._generate()
        except Exception as error:
            # Whatever it is, no caller may be left waiting.
            self._arrived.clear()
            self._fail(list(self._futures), error)

    async def _settle(self) -> None:
        """Let the event loop run until no new request comes."""
        quiet = 0
        while quiet < _QUIET_PASSES:
            before = len(self._arrived)
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._arrived) == before else 0

    async def _run_job(self, job: _Job) -> None:
        try:
            await self._in_thread(job.function)
        except asyncio.CancelledError:
            job.future.cancel()
            raise
        except Exception as error:  # it is the caller's to handle
            _set_exception(job.future, error)
        else:
            _set_result(job.future)

    async def _generate(self) -> None:
        # While a job waits, what is in work is finished, and nothing new is begun.
        arrived = [] if self._jobs else sorted(self._arrived, key=lambda request: request.session)
        released = list(self._released)
        self._arrived = self._arrived if self._jobs else []
        self._released.clear()
        try:
            done = await self._in_thread(lambda: self._generator.run(arrived, released, lambda: self._news))
        except Exception as error:  # the callers get it; those who have not begun may still be served
            await self._in_thread(self._generator.reset)
            self._fail([request for request in self._futures if request not in self._arrived], error)
            return
        for request in done:
            if request in self._futures:
                _set_result(self._futures[request])

    async def _in_thread(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    def _fail(self, requests: list[Request], error: Exception) -> None:
        for request in requests:
            if isinstance(error, AgentRLError):
                failure: Exception = error
            else:
                failure = RuntimeError(f"the engine failed while generating: {error}")
                failure.__cause__ = error
            _set_exception(self._futures[request], failure)


def _set_result(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _set_exception(future: "asyncio.Future[None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
