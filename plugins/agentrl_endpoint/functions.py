"""Runs somebody's Python function: an async one on an event loop beside ours, a plain one in a thread.

Neither runs on our own loop: the endpoint must be able to answer while a function blocks, and a time-out must
be able to fire. All async functions share one loop, as they would in a program of their own, so that clients
and locks that they keep in their module work.
"""

import asyncio
import concurrent.futures
import inspect
import logging
import threading
import traceback
from collections.abc import Callable
from typing import Any

from agentrl.types import Action
from agentrl_endpoint.programs import Access, EpisodeOver, ProgramFailed, Step

# Seconds that a function gets to end after its episode.
GRACE = 5.0
_log = logging.getLogger(__name__)


class _Handle:
    """Where the endpoint of the episode is: `base_url`, `api_key`, and a name to give as `model`."""

    def __init__(self, access: Access, step: Step) -> None:
        """Take what to hand on, and what plays an action on the loop that runs now."""
        self.base_url, self.api_key, self.model = access.base_url, access.api_key, access.model
        self._step, self._loop = step, asyncio.get_running_loop()

    def _begin_step(self, action: str | Action) -> "concurrent.futures.Future[str | Exception]":
        """Play an action on the home loop; what it raises is returned, for nobody may be left to hear it."""
        return asyncio.run_coroutine_threadsafe(self._stepping(action), self._loop)

    async def _stepping(self, action: str | Action) -> str | Exception:
        try:
            return await self._step(action)
        except (EpisodeOver, ProgramFailed) as error:
            return error


class Episode(_Handle):
    """What an async program gets: the endpoint, and the env."""

    async def step(self, action: str | Action) -> str:
        """Play an action in the env and return what it shows then.

        Where the action ends the episode, the program is cancelled here.
        """
        return _shown(await asyncio.wrap_future(self._begin_step(action)))


class PlainEpisode(_Handle):
    """What a plain function gets: the endpoint, and the env."""

    def step(self, action: str | Action) -> str:
        """Play an action in the env and return what it shows then.

        Raises:
            EpisodeOver: the action has ended the episode.
        """
        return _shown(self._begin_step(action).result())


def _shown(answer: str | Exception) -> str:
    """Return what a step has shown.

    Raises:
        EpisodeOver: it has ended the episode.
        ProgramFailed: it was none.
    """
    if isinstance(answer, Exception):
        raise answer
    return answer


class Function:
    """A function of the user as a program; `observation, episode` in, the text of an action out."""

    def __init__(self, function: Callable[..., Any], access: Access, step: Step) -> None:
        """Take the function, and what it needs for one episode."""
        self._function, self._access, self._step = function, access, step

    async def __call__(self, observation: str) -> object:
        """Return what the function returns."""
        handle = Episode if is_async(self._function) else PlainEpisode
        job = _AsyncJob() if handle is Episode else _PlainJob()
        job.start(self._function, observation, handle(self._access, self._step))
        try:
            await asyncio.wait({job.ended})
        except asyncio.CancelledError:
            await job.end()
            raise
        value, error = job.ended.result()
        if error is not None:
            raise ProgramFailed(f"the program raised {describe(error)}") from error
        return value


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether calling `function` makes a coroutine."""
    call = getattr(function, "__call__", None)  # noqa: B004 - of an instance, perhaps async
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def describe(error: BaseException) -> str:
    """Return an exception as its text and the line that raised it."""
    name = type(error).__name__
    text = f"{name}: {error}" if str(error) else name
    frames = traceback.extract_tb(error.__traceback__)
    # The first frame is ours, the second the function's; what it called may be deep in a library.
    where = f" (line {frames[1].lineno} of {frames[1].filename})" if len(frames) > 1 else ""
    return text + where


class _Job:
    """A function at work elsewhere; `ended` tells what came of it, on the loop that made it."""

    def __init__(self) -> None:
        self._home = asyncio.get_running_loop()
        self.ended: asyncio.Future[tuple[object, BaseException | None]] = self._home.create_future()

    def start(self, function: Callable[..., Any], *arguments: object) -> None:
        raise NotImplementedError

    def tell(self, value: object, error: BaseException | None) -> None:
        """Settle `ended`, from any thread; nobody listens any more where the loop is closed."""
        if not self._home.is_closed():
            self._home.call_soon_threadsafe(self._settle, value, error)

    def _settle(self, value: object, error: BaseException | None) -> None:
        if not self.ended.done():
            self.ended.set_result((value, error))

    async def end(self) -> None:
        """Wait until the function has ended; say so if it does not."""
        await asyncio.wait({self.ended}, timeout=GRACE)
        if not self.ended.done():
            self._abandon()

    def _abandon(self) -> None:
        _log.warning(
            "a program goes on after its episode, in a thread that cannot be ended; "
            "make it end when a request or step raises, or start it by agent.command"
        )


class _PlainJob(_Job):
    """A plain function in a thread, which ends when its next request or step raises."""

    def start(self, function: Callable[..., Any], *arguments: object) -> None:
        threading.Thread(
            target=self._run, args=(function, *arguments), name="agentrl-program", daemon=True
        ).start()

    def _run(self, function: Callable[..., Any], *arguments: object) -> None:
        try:
            value = function(*arguments)
        except BaseException as error:  # whatever it is, it is told on the other side
            self.tell(None, error)
        else:
            self.tell(value, None)


class _AsyncJob(_Job):
    """An async function on the loop beside ours; it is cancelled where it waits."""

    def start(self, function: Callable[..., Any], *arguments: object) -> None:
        self._loop = _loop_beside()
        self._task: asyncio.Task[None] | None = None
        self._loop.call_soon_threadsafe(self._begin, function, arguments)

    def _begin(self, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        self._task = self._loop.create_task(self._run(function, *arguments))
        # Where it is cancelled before it has begun.
        self._task.add_done_callback(lambda _: self.tell(None, EpisodeOver()))

    async def _run(self, function: Callable[..., Any], *arguments: object) -> None:
        try:
            value = await function(*arguments)
        except BaseException as error:  # whatever it is, it is told on the other side
            self.tell(None, error)
        else:
            self.tell(value, None)

    async def end(self) -> None:
        """Cancel the function and wait until it has ended."""
        self._loop.call_soon_threadsafe(self._cancel)
        await super().end()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _abandon(self) -> None:
        """Leave the loop to a function that does not listen; the next ones get another."""
        super()._abandon()
        _leave_loop(self._loop)


_lock = threading.Lock()
_beside: asyncio.AbstractEventLoop | None = None


def _loop_beside() -> asyncio.AbstractEventLoop:
    """Return the loop that async programs run on, started when first needed, and kept."""
    global _beside
    with _lock:
        if _beside is None:
            _beside = asyncio.new_event_loop()
            threading.Thread(target=_run_loop, args=(_beside,), name="agentrl-programs", daemon=True).start()
        return _beside


def _leave_loop(loop: asyncio.AbstractEventLoop) -> None:
    global _beside
    with _lock:
        if _beside is loop:
            _beside = None


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:  # of a task that a program has started
            _log.warning("a task of a program raised %s", describe(error))
