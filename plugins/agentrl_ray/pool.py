"""Lends envs that live on the nodes of a cluster; a house that is lost with its node is built again."""

import asyncio
import itertools
import logging
from collections.abc import Sequence

from agentrl.errors import EnvLost, UsageError
from agentrl.hosting.housing import Housing
from agentrl.hosting.pool import EnvPool
from agentrl.interfaces import Env
from agentrl_ray.building import Builder, Home
from agentrl_ray.housed_env import HousedEnv
from agentrl_ray.placement import Place

_log = logging.getLogger(__name__)


class HousePool(EnvPool):
    """Envs in houses, each of which is an actor on some node."""

    def __init__(self, housing: Housing, places: Sequence[Place], builder: Builder) -> None:
        """Take what is to be hosted, places for houses, and what builds them; nothing is started yet."""
        super().__init__(housing.workers)
        self._homes = [Home(Housing(housing.env, housing.options, place.workers), place) for place in places]
        self._builder = builder
        self._vacancy = asyncio.Condition()
        self._repairs: set[asyncio.Task[None]] = set()
        self._loans = itertools.count()

    async def release(self, env: Env, broken: bool = False) -> None:
        """Take back an env, and tell its house whether it is broken."""
        if isinstance(env, HousedEnv):
            env.broken = env.broken or broken
        await super().release(env, broken)

    async def close(self) -> None:
        """Throw away every env, and the houses. May be called twice."""
        for repair in self._repairs:
            repair.cancel()
        await super().close()
        homes, self._homes = self._homes, []
        await asyncio.gather(*(home.close() for home in homes))

    def _usable(self, env: Env) -> bool:
        return False  # whether it can play again is for its house to know

    async def _make(self) -> Env:
        while True:
            home = await self._vacant()
            home.used += 1
            tenure = home.tenure
            try:
                await self._builder.build(home)
                env = HousedEnv(home, next(self._loans))
                await env.borrow()
                return env
            except EnvLost as loss:
                self._lost(home, tenure, loss)
            except BaseException:
                await self._leave(home, tenure)
                raise

    async def _discard(self, env: Env) -> None:
        if not isinstance(env, HousedEnv) or env.over:
            return
        try:
            await env.give_back()
        except EnvLost as loss:
            self._lost(env.home, env.tenure, loss)
        finally:
            await self._leave(env.home, env.tenure)

    async def _vacant(self) -> Home:
        """Wait for a house with room, and return the one that has most.

        Raises:
            UsageError: no house is left.
        """
        async with self._vacancy:
            while True:
                if not self._homes:
                    raise UsageError(
                        "no node is left on which envs could play; --resume goes on from the last checkpoint"
                    )
                vacant = [home for home in self._homes if home.ready and home.used < home.place.workers]
                if vacant:
                    return min(vacant, key=lambda home: home.used / home.place.workers)
                await self._vacancy.wait()

    async def _leave(self, home: Home, tenure: int) -> None:
        async with self._vacancy:
            if home.tenure == tenure:
                home.used -= 1
            self._vacancy.notify_all()

    def _lost(self, home: Home, tenure: int, loss: EnvLost) -> None:
        """Have a house that is lost built again, unless somebody does."""
        if home.tenure != tenure or self._closed:
            return
        workers = home.place.workers
        _log.warning("%d env workers: %s; what they played is played again", workers, loss)
        home.vacate()
        repair = asyncio.create_task(self._repair(home))
        self._repairs.add(repair)
        repair.add_done_callback(self._repairs.discard)

    async def _repair(self, home: Home) -> None:
        try:
            await self._builder.build(home)
            home.ready = True
        except Exception as error:
            # Those that are left play on; with none left, who waits for a worker is told.
            _log.warning("%d env workers are not replaced: %s", home.place.workers, error)
            self._homes.remove(home)
        finally:
            async with self._vacancy:
                self._vacancy.notify_all()
