"""Builds the houses in which envs live, on whatever node has room for them."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from agentrl.errors import UsageError
from agentrl.hosting.housing import Housing
from agentrl_ray.cluster import Cluster
from agentrl_ray.house import House
from agentrl_ray.placement import Place
from agentrl_ray.visiting import Visit

# Seconds that the envs of a house have to close.
_GRACE = 10.0


class Loss:
    """How a house was lost: found out once, for all whose envs lived there."""

    def __init__(self, find: Callable[[], str]) -> None:
        """Take how to find out, which may take its time."""
        self._find = find
        self._found: asyncio.Task[str] | None = None

    async def tell(self) -> str:
        """Return it, once it is certain."""
        if self._found is None:
            self._found = asyncio.create_task(asyncio.to_thread(self._find))
        return await asyncio.shield(self._found)


class Home:
    """A place for a house, and the house that is there now.

    Attributes:
        housing: what is to be hosted.
        place: where.
        actor: the house; None before it is built.
        ready: whether the house can be asked, or can be built when it is first asked.
        tenure: counts the houses that there were.
        used: envs of this house that are lent.
        loss: how the house was lost, if it is.
    """

    def __init__(self, housing: Housing, place: Place) -> None:
        """Take what is to be hosted, and the room for it."""
        self.housing = housing
        self.place = place
        self.building = asyncio.Lock()
        self.ready = True
        self.tenure = self.used = 0
        self.actor: Any = None
        self.loss = Loss(str)

    def vacate(self) -> None:
        """Give the house up, with all who live there."""
        import ray

        if self.actor is not None:
            ray.kill(self.actor)
        self.ready, self.actor, self.used = False, None, 0
        self.tenure += 1

    async def close(self) -> None:
        """End the house."""
        import ray

        if self.actor is not None:
            with suppress(TimeoutError, ray.exceptions.RayError):
                await asyncio.wait_for(self.actor.close.remote(), _GRACE)
            self.vacate()


class Builder:
    """Builds houses on the nodes of a cluster."""

    def __init__(self, cluster: Cluster, visit: Visit, *, setup: bool, wait: float) -> None:
        """Take the cluster, what nodes are told, and whether to set up and how long to wait."""
        self._cluster = cluster
        self._visit = visit
        self._setup = setup
        self._wait = wait

    async def build(self, home: Home) -> None:
        """Build the house, unless it is there.

        Raises:
            UsageError: its node is not fit, or there is no room for it.
        """
        async with home.building:
            if home.actor is None:
                await self._build(home)

    async def _build(self, home: Home) -> None:
        import ray

        actor = self._cluster.actor(House, home.place)
        try:
            await asyncio.wait_for(actor.__ray_ready__.remote(), self._wait)
            node, address = await actor.open.remote(self._visit, home.housing, self._setup)
        except BaseException as error:
            ray.kill(actor)
            if isinstance(error, ray.exceptions.RayTaskError):
                raise error.cause from None
            if isinstance(error, TimeoutError | ray.exceptions.RayActorError):
                raise UsageError(f"Ray had no room for env workers within {self._wait:g} s") from error
            raise
        home.actor = actor
        home.loss = Loss(partial(self._cluster.loss, actor, node, address))
