"""Keeps the process that forks episodes or judges, which may die."""

import asyncio
import logging

from agentrl.hosting.elsewhere.zygote import Preload, Zygote

_log = logging.getLogger(__name__)


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
