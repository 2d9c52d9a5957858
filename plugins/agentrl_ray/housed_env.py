"""An env that plays by proxy on another node."""

import asyncio
from collections.abc import Sequence
from typing import Any

from agentrl.errors import EnvLost, UsageError
from agentrl.interfaces import Env
from agentrl.types import Action, Observation, Outcome, Task
from agentrl_ray.building import Home


class HousedEnv(Env):
    """An env that is lent by a house. It only plays: tasks and demonstrations are asked of the env itself.

    Attributes:
        home: whose house lends it.
        tenure: which of the home's houses it was.
        broken: whether it cannot play again.
        over: whether it was given back.
    """

    def __init__(self, home: Home, loan: int) -> None:
        """Take the home, whose house is there, and the number of the loan."""
        super().__init__()
        self.home = home
        self.tenure = home.tenure
        self.broken = self.over = False
        self._house = home.actor
        self._loss = home.loss
        self._loan = loan

    async def borrow(self) -> None:
        """Have the house lend the env.

        Raises:
            AgentRLError: it cannot be made.
            EnvLost: the house is gone.
        """
        try:
            await self._answer(self._house.borrow.remote(self._loan))
        except asyncio.CancelledError:
            self._house.give_back.remote(self._loan, True)
            raise

    async def give_back(self) -> None:
        """Let the house have the env back.

        Raises:
            EnvLost: the house is gone.
        """
        self.over = True
        await self._answer(self._house.give_back.remote(self._loan, self.broken))

    def tasks(self, split: str) -> Sequence[Task]:
        """Refuse: it only plays."""
        raise UsageError("an env on another node only plays; ask an env in this process for its tasks")

    async def reset(self, task: Task, seed: int) -> Observation:
        """Begin an episode over there."""
        observation: Observation = await self._ask("reset", task, seed)
        return observation

    async def step(self, action: Action) -> Observation:
        """Apply `action` over there."""
        observation: Observation = await self._ask("step", action)
        return observation

    async def judge(self) -> Outcome:
        """Return what the env over there judges."""
        outcome: Outcome = await self._ask("judge")
        return outcome

    async def _ask(self, operation: str, *arguments: Any) -> Any:
        return await self._answer(self._house.ask.remote(self._loan, operation, arguments))

    async def _answer(self, reference: Any) -> Any:
        """Return what the house answers, or raise what was raised over there.

        Raises:
            EnvLost: the house is gone.
        """
        import ray

        try:
            return await reference
        except BaseException as error:
            self.broken = True
            if isinstance(error, ray.exceptions.RayTaskError):
                raise error.cause from None
            if isinstance(error, ray.exceptions.RayActorError):
                raise EnvLost(await self._loss.tell()) from error
            raise
