"""Lends envs whose worlds live in another virtual environment: one worker, one process an episode."""

import logging

from agentrl.hosting.elsewhere import sandbox
from agentrl.hosting.elsewhere.court import Court
from agentrl.hosting.elsewhere.keeper import Keeper
from agentrl.hosting.elsewhere.remote_env import EpisodeEnv, RemoteEnv, preload_of
from agentrl.hosting.elsewhere.site import site_of
from agentrl.hosting.elsewhere.zygote import Zygote
from agentrl.hosting.pool import EnvPool
from agentrl.interfaces import Env

_log = logging.getLogger(__name__)
_UNGUARDED = "the env %r plays without its sandbox: what a model writes runs as you, and can see every answer"


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
        self._worlds = Keeper(preload_of(env, site, environment.worker))
        self._court: Court | None = None
        if environment.judge is not None:
            judges = preload_of(env, site, environment.judge)
            self._court = Court(self._name, self._config, judges, environment.judgements, close_seconds)

    @property
    def zygote(self) -> Zygote | None:
        """Return what forks the worlds, None before it was needed."""
        return self._worlds.zygote

    async def close(self) -> None:
        """End every episode and the workers. May be called twice."""
        try:
            await super().close()
            if self._court is not None:
                await self._court.close()
            await self._worlds.close()
        finally:
            self._worlds.kill()

    async def _make(self) -> Env:
        if self._court is not None:
            await self._court.open()
        world = await self._worlds.living()
        return EpisodeEnv(self._name, self._config, world, self._court, self._close_seconds)

    def _usable(self, env: Env) -> bool:
        return False  # an episode's process is played once; the next env is only a fork away

    async def _discard(self, env: Env) -> None:
        await env.close()

    def _abandon(self, env: Env) -> None:
        if isinstance(env, EpisodeEnv):
            env.kill()
