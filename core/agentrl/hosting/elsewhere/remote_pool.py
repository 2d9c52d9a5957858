"""Lends envs whose worlds live in another virtual environment: one worker, one process an episode."""

import asyncio
import logging

from agentrl.hosting.elsewhere import sandbox
from agentrl.hosting.elsewhere.judgements import Judgements
from agentrl.hosting.elsewhere.remote_env import EpisodeEnv, RemoteEnv, preload_of
from agentrl.hosting.elsewhere.site import site_of
from agentrl.hosting.elsewhere.zygote import Preload, Zygote
from agentrl.hosting.pool import EnvPool
from agentrl.interfaces import Env

_log = logging.getLogger(__name__)
_UNGUARDED = "the env %r plays without its sandbox: what a model writes runs as you, and can see every answer"


class Keeper:
    """Keeps a zygote: starts it when it is first needed, and again when it has died."""

    def __init__(self, preload: Preload) -> None:
        """Take what the zygote is to preload; nothing is started yet."""
        self.zygote: Zygote | None = None
        self._preload = preload
        self._starting = asyncio.Lock()

    async def living(self) -> Zygote:
        """Return the zygote, alive.

        Raises:
            AgentRLError: it cannot be started.
        """
        async with self._starting:
            if self.zygote is not None and self.zygote.alive:
                return self.zygote
            if self.zygote is not None:
                _log.warning("the worker of %s has died and is started again", self._preload.title)
                await self.zygote.close(0.0)
            self.zygote = Zygote(self._preload)
            await self.zygote.start()
            return self.zygote

    async def close(self) -> None:
        """End the zygote, which ends every episode. May be called twice."""
        if self.zygote is not None:
            await self.zygote.close()

    def kill(self) -> None:
        """Kill the zygote and every episode, at once."""
        if self.zygote is not None:
            self.zygote.kill()


class RemotePool(EnvPool):
    """Envs that play in processes forked from one worker; another forks the judges where they are apart."""

    def __init__(
        self, env: RemoteEnv, size: int | None = None, name: str | None = None, close_seconds: float = 10.0
    ) -> None:
        """Take the env whose world is to be played; nothing is started yet.

        Args:
            env: lists the tasks here.
            size: episodes side by side; None for what the environment says.
            name: of the env, for messages; None looks it up.
            close_seconds: how long the world's `close` may take before its process is killed.

        Raises:
            UsageError: the environment is not set up, or its sandbox cannot be made here; the message has the
                remedy.
        """
        environment = env.environment
        super().__init__(environment.episodes if size is None else size)
        site = site_of(type(env), name).require()
        if env.sandbox is not None:
            sandbox.check(site, env.sandbox)
        elif environment.sandbox is not None:
            _log.warning(_UNGUARDED, site.name)
        self._name = site.name
        self._config = dict(env.worker_config())
        self._close_seconds = close_seconds
        self._judgements = Judgements()
        self._worlds = Keeper(preload_of(env, site, environment.worker))
        self._judges = Keeper(preload_of(env, site, environment.judge)) if environment.judge else None

    @property
    def zygote(self) -> Zygote | None:
        """Return what forks the worlds, None before it was needed."""
        return self._worlds.zygote

    async def close(self) -> None:
        """End every episode and the workers. May be called twice."""
        keepers = [keeper for keeper in (self._worlds, self._judges) if keeper]
        try:
            await super().close()
            await asyncio.gather(*(keeper.close() for keeper in keepers))
        finally:
            for keeper in keepers:
                keeper.kill()

    async def _make(self) -> Env:
        judge = await self._judges.living() if self._judges else None
        world = await self._worlds.living()
        return EpisodeEnv(self._name, self._config, world, judge, self._close_seconds, self._judgements)

    def _usable(self, env: Env) -> bool:
        return False  # an episode's process is played once; the next env is only a fork away

    async def _discard(self, env: Env) -> None:
        await env.close()

    def _abandon(self, env: Env) -> None:
        if isinstance(env, EpisodeEnv):
            env.kill()
