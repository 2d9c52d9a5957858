"""The actor in which envs of a node live: a pool like that of a run on one machine, asked from afar.

So envs are hosted as they always are: each in a worker process or, where its world needs another virtual
environment, in a process forked from one that is shared by all of the node.
"""

import asyncio
import os
from typing import Any

from agentrl.errors import AgentRLError, UsageError
from agentrl.hosting.elsewhere import RemoteEnv, set_up, site_of
from agentrl.hosting.housing import Housing
from agentrl.hosting.pool import EnvPool
from agentrl.interfaces import Env
from agentrl.plugins import load
from agentrl_ray.visiting import Visit, prepare


class House:
    """Lends the envs of a node; every loan has a number, which whoever borrows chooses."""

    def __init__(self) -> None:
        """Have no envs yet."""
        self._pool: EnvPool | None = None
        self._loans: dict[int, asyncio.Task[Env]] = {}

    async def open(self, visit: Visit, housing: Housing, setup: bool) -> tuple[str, str]:
        """Get ready to lend envs, and return the node's id and address.

        Raises:
            UsageError: the node is not fit, or the env's virtual environment is not set up on it.
        """
        import ray

        address = ray.util.get_node_ip_address()
        prepare(visit, address)
        if os.path.isdir(visit.folder):
            os.chdir(visit.folder)
        try:
            if setup:
                await asyncio.to_thread(_set_up, housing.env)
            self._pool = housing.open()
        except AgentRLError as error:
            raise UsageError(f"on the node {address}: {error}") from error
        return ray.get_runtime_context().get_node_id(), address

    async def borrow(self, loan: int) -> None:
        """Lend an env.

        Raises:
            AgentRLError: none can be made.
        """
        assert self._pool is not None
        self._loans[loan] = asyncio.create_task(self._pool.acquire())
        try:
            await asyncio.shield(self._loans[loan])
        except Exception:
            self._loans.pop(loan, None)
            raise

    async def ask(self, loan: int, operation: str, arguments: tuple[Any, ...]) -> Any:
        """Let a lent env reset, step or judge."""
        return await getattr(self._loans[loan].result(), operation)(*arguments)

    async def give_back(self, loan: int, broken: bool) -> None:
        """Take back what was lent, or is about to be."""
        task = self._loans.pop(loan, None)
        if task is None or self._pool is None:
            return
        task.cancel()
        (env,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(env, Env):
            await self._pool.release(env, broken)

    async def close(self) -> None:
        """End all envs."""
        if self._pool is not None:
            await self._pool.close()


def _set_up(name: str) -> None:
    """Build the env's virtual environment on this node, if it has one and that is missing."""
    env = load("env", name)
    if issubclass(env, RemoteEnv):
        site = site_of(env, name)
        if not site.ready:
            set_up(site, wait=True)  # another house may be here, or have the same files
