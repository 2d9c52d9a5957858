"""One vLLM that survives its own failures: started again, given its weights again, asked again."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from agentrl.errors import AgentRLError, UsageError
from agentrl.types import Completion, Sampling
from agentrl_vllm.correspondence import Correspondence, Died
from agentrl_vllm.messages import Ask, Cargo, Rest

_log = logging.getLogger(__name__)


class Host:
    """A worker, and what it takes to have another in its place.

    A successor takes its place when it has the weights, so that no request meets one that has not.
    """

    def __init__(self, begin: Callable[[], Correspondence], restarts: int) -> None:
        """Take how to start a worker, and how often it may be started again between two loads of weights."""
        self._begin = begin
        self._restarts = self._left = restarts
        self._replacing = asyncio.Lock()
        self._revivals: set[asyncio.Task[None]] = set()
        self._current: Correspondence | None = None
        self._closed = False
        self._again: Cargo | None = None  # what a successor gets; one that has just started needs nothing
        self._replaceable = True

    async def start(self) -> None:
        """Start vLLM.

        Raises:
            UsageError: it cannot be started.
        """
        try:
            await self._replace(None)
        except Died as death:
            raise UsageError(str(death)) from death

    async def ask(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Continue `token_ids`; asked again if vLLM fails and can be started again.

        Raises:
            AgentRLError: it failed for good.
        """
        ids = list(token_ids)
        while True:
            current = self._running()
            try:
                completion: Completion = await current.send(lambda number: Ask(number, ids, sampling))
                return completion
            except Died as death:
                await self._revive(current, death)

    async def load(self, cargo: Cargo, whole: Cargo | None) -> None:
        """Generate with these weights from now on; a worker that fails over them is replaced once.

        Args:
            cargo: for a worker that has the weights before these.
            whole: for one that has just started; None where nobody has them any more.

        Raises:
            AgentRLError: its successor failed, too, or there can be none.
        """
        async with self._replacing:
            # Known only now: who waited here may have waited for the successor of one that died.
            try:
                await self._running().load(cargo)
            except Died as death:
                if whole is None:
                    raise AgentRLError(f"{death}; --resume goes on from the last checkpoint") from death
                _log.warning("%s; another takes its place, with the new weights", death)
                await self._replace_or_fail(whole, "the engine could not load the trainer's weights")
        self._left = self._restarts
        # Tensors are the trainer's, which changes them.
        self._again = whole if whole is not None and whole.tensors is None else None
        self._replaceable = self._again is not None

    async def rest(self, *, asleep: bool) -> None:
        """Give memory back, or take it again."""
        while True:
            current = self._running()
            try:
                await current.send(lambda number: Rest(number, asleep))
                return
            except Died as death:
                await self._revive(current, death)
                if not asleep:  # its successor is awake
                    return

    async def close(self) -> None:
        """End the worker; may be called twice."""
        self._closed = True
        for revival in self._revivals:
            revival.cancel()
        await asyncio.gather(*self._revivals, return_exceptions=True)
        if self._current is not None:
            await self._current.close()

    def _running(self) -> Correspondence:
        if self._current is None or self._closed:
            raise AgentRLError("the engine is not running: start it first, and do not use it after close")
        return self._current

    async def _revive(self, dead: Correspondence, death: Died) -> None:
        """Put another worker into the place of the `dead` one, unless somebody has done so.

        It is begun by a request, but goes on where that is given up: others wait for it.
        """
        revival = asyncio.create_task(self._revive_once(dead, death))
        self._revivals.add(revival)
        revival.add_done_callback(self._revivals.discard)
        # What it raises is for those who wait for it; without them it is raised to who asks next.
        revival.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(revival)

    async def _revive_once(self, dead: Correspondence, death: Died) -> None:
        async with self._replacing:
            if self._running() is not dead:
                return
            if self._left < 1 or not self._replaceable:
                raise AgentRLError(f"{death}; --resume goes on from the last checkpoint") from death
            self._left -= 1
            _log.warning("%s; another takes its place, and is asked again what it was asked", death)
            await self._replace_or_fail(self._again, str(death))

    async def _replace_or_fail(self, given: Cargo | None, reason: str) -> None:
        try:
            await self._replace(given)
        except Died as death:
            raise AgentRLError(f"{reason}, and started again it failed, too: {death}") from death

    async def _replace(self, given: Cargo | None) -> None:
        """End the worker of now, which keeps its place meanwhile; start one with the weights given."""
        if self._current is not None:
            await self._current.close()
        fresh = await self._begun()
        try:
            await fresh.started()
            if given is not None:
                await fresh.load(given)
            if self._closed:
                raise AgentRLError("the engine was closed while it was started again")
        except BaseException:
            await fresh.close()
            raise
        self._current = fresh

    async def _begun(self) -> Correspondence:
        """Start a worker; one that nobody waits for any more is ended."""
        beginning = asyncio.create_task(asyncio.to_thread(self._begin))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            [begun] = await asyncio.gather(beginning, return_exceptions=True)
            if not isinstance(begun, BaseException):
                await begun.close()
            raise
