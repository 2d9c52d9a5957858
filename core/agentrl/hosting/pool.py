"""Lends envs to episodes: instances are made when first needed, reused, and thrown away once broken."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from agentrl.discovery import find_plugin
from agentrl.errors import AgentRLError, UsageError
from agentrl.hosting.worker_env import WorkerEnv
from agentrl.interfaces import Env

_log = logging.getLogger(__name__)


class EnvPool(ABC):
    """At most `size` envs, each lent to one episode at a time."""

    def __init__(self, size: int) -> None:
        """Make nothing yet.

        Raises:
            UsageError: `size` is not positive.
        """
        if size < 1:
            raise UsageError(f"a pool of {size} envs cannot play; give it at least 1")
        self.size = size
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Env] = []
        self._lent: dict[int, Env] = {}
        self._closed = False

    async def acquire(self) -> Env:
        """Lend an env that is ready for `reset`, waiting while all are lent.

        Raises:
            AgentRLError: no env can be made, or the pool is closed.
        """
        await self._slots.acquire()
        try:
            if self._closed:
                raise AgentRLError("the pool of envs is closed")
            env = await self._take_idle() or await self._make()
        except BaseException:
            self._slots.release()
            raise
        self._lent[id(env)] = env
        return env

    async def release(self, env: Env, broken: bool = False) -> None:
        """Take back an env; a `broken` one is thrown away and its place given to a fresh one.

        Raises:
            ValueError: the env is not lent.
        """
        if self._lent.pop(id(env), None) is None:
            raise ValueError("an env was released that the pool has not lent")
        try:
            if broken or self._closed or not self._usable(env):
                await self._discard(env)
            else:
                self._idle.append(env)
        finally:
            self._slots.release()

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Env]:
        """Lend an env for a block; if the block raises, the env counts as broken."""
        env = await self.acquire()
        broken = True
        try:
            yield env
            broken = False
        finally:
            await self.release(env, broken)

    async def close(self) -> None:
        """Throw away every env, the lent ones too. May be called twice."""
        self._closed = True
        envs = [*self._idle, *self._lent.values()]
        self._idle.clear()
        try:
            await asyncio.gather(*(self._discard(env) for env in envs))
        finally:
            for env in envs:
                self._abandon(env)

    async def _take_idle(self) -> Env | None:
        while self._idle:
            env = self._idle.pop()
            if self._usable(env):
                return env
            await self._discard(env)
        return None

    def _usable(self, env: Env) -> bool:
        """Return whether an env that was played without a failure can play again."""
        return True

    @abstractmethod
    async def _make(self) -> Env:
        """Return a new env; if cancelled, leave nothing behind."""

    @abstractmethod
    async def _discard(self, env: Env) -> None:
        """Release all that `env` holds, whatever state it is in. Raises nothing; may be called twice."""

    def _abandon(self, env: Env) -> None:  # noqa: B027 - optional
        """Release what would outlive this process, at once: closing may have been cancelled."""


class InProcessPool(EnvPool):
    """Envs in this process."""

    def __init__(self, factory: Callable[[], Env], size: int, close_seconds: float = 10.0) -> None:
        """Take what makes an env; closing one may take `close_seconds` before it is abandoned."""
        super().__init__(size)
        self._factory = factory
        self._close_seconds = close_seconds

    async def _make(self) -> Env:
        return self._factory()

    async def _discard(self, env: Env) -> None:
        try:
            await asyncio.wait_for(env.close(), self._close_seconds)
        except TimeoutError:
            _log.warning("%s.close took longer than %g s", type(env).__name__, self._close_seconds)
        except Exception:  # a broken env may raise anything, and its episode is over
            _log.warning("%s.close failed", type(env).__name__, exc_info=True)


class WorkerPool(EnvPool):
    """Envs in worker processes, one each."""

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any],
        size: int,
        start_seconds: float = 120.0,
        close_seconds: float = 10.0,
    ) -> None:
        """Take what the workers are to host; none is started yet.

        Args:
            name: of the env's entry point, or "module:Class".
            options: of the env's `Config`, JSON-safe.
            size: workers at most.
            start_seconds: how long a worker may take to import and make the env.
            close_seconds: how long the env's `close` may take before the worker is killed.

        Raises:
            PluginError: there is no such env, or more than one.
        """
        super().__init__(size)
        if ":" not in name:
            find_plugin("env", name)
        self._name = name
        self._options = options
        self._start_seconds = start_seconds
        self._close_seconds = close_seconds

    async def _make(self) -> Env:
        env = WorkerEnv(self._name, self._options, self._close_seconds)
        await env.start(self._start_seconds)
        return env

    def _usable(self, env: Env) -> bool:
        return isinstance(env, WorkerEnv) and env.alive

    async def _discard(self, env: Env) -> None:
        await env.close()

    def _abandon(self, env: Env) -> None:
        if isinstance(env, WorkerEnv):
            env.kill()
