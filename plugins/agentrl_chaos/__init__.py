"""Breaks envs on purpose, so that you can see your run survive it: `--set hooks.chaos.crash=0.1`.

At each reset and step an env crashes, hangs or returns garbage with the probabilities that are set, and takes
as long as is set. The same seeds bring the same misfortunes.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import Field, model_validator

from agentrl import Action, Env, Expert, Observation, Outcome, Plugin, PluginConfig, Task, hookimpl
from agentrl.seeds import derive

Probability = Annotated[float, Field(ge=0, le=1)]
# Longer than any run waits.
_HANG_SECONDS = 1e6
_GARBAGE: tuple[Any, ...] = (None, 42, "an observation", Observation(text=cast(str, None)), Action("a step"))


class OnPurpose(Exception):
    """What a crash raises, so that nobody mistakes it for a fault of the env."""


class Chaos(Plugin):
    """Wraps every env in one that fails at random."""

    class Config(PluginConfig):
        """How often, for each reset and each step; at most one of the three happens.

        Attributes:
            crash: probability that the env raises.
            hang: probability that it does not answer.
            garbage: probability that it answers with something that is no observation.
            delay: seconds that it takes for each reset and step, in addition to its own.
            seed: draws what happens.
        """

        crash: Probability = 0.0
        hang: Probability = 0.0
        garbage: Probability = 0.0
        delay: float = Field(default=0.0, ge=0)
        seed: int = 0

        @model_validator(mode="after")
        def _at_most_certain(self) -> "Chaos.Config":
            if self.crash + self.hang + self.garbage > 1:
                raise ValueError("crash, hang and garbage are probabilities that add up to more than 1")
            return self

    @hookimpl
    def wrap_env(self, env: Env, task: Task, seed: int) -> Env | None:
        """Return `env` with a tendency to fail, or None if nothing is to fail."""
        if not self.config.crash + self.config.hang + self.config.garbage + self.config.delay:
            return None
        return Troubled(env, self.config, derive(self.config.seed, seed, task.id))


class Troubled(Env):
    """An env that fails at random, and is otherwise the env it wraps."""

    def __init__(self, env: Env, rates: Chaos.Config, seed: int) -> None:
        """Take the env to break, how often, and the seed of the episode's misfortunes."""
        super().__init__()
        self._env = env
        self._rates = rates
        self._seed = seed
        self._calls = 0

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the wrapped env's tasks."""
        return self._env.tasks(split)

    def demonstrate(self, task: Task) -> Sequence[str] | Expert | None:
        """Return the wrapped env's demonstration."""
        return self._env.demonstrate(task)

    def explain(self, task: Task) -> str | None:
        """Return the wrapped env's explanation."""
        return self._env.explain(task)

    def fingerprint(self) -> Mapping[str, str]:
        """Return the wrapped env's fingerprint."""
        return self._env.fingerprint()

    async def reset(self, task: Task, seed: int) -> Observation:
        """Reset, or fail."""
        await asyncio.sleep(self._rates.delay)
        failure = self._draw()
        return await self._suffer(failure, "reset") if failure else await self._env.reset(task, seed)

    async def step(self, action: Action) -> Observation:
        """Step, or fail."""
        await asyncio.sleep(self._rates.delay)
        failure = self._draw()
        return await self._suffer(failure, "step") if failure else await self._env.step(action)

    async def judge(self) -> Outcome:
        """Judge; what happened is not made up."""
        return await self._env.judge()

    async def close(self) -> None:
        """Close the wrapped env."""
        await self._env.close()

    def _draw(self) -> str | None:
        """Return how this call is to fail, or None."""
        self._calls += 1
        self._luck = random.Random(derive(self._seed, self._calls))
        drawn = self._luck.random()
        for failure in ("crash", "hang", "garbage"):
            drawn -= getattr(self._rates, failure)
            if drawn < 0:
                return failure
        return None

    async def _suffer(self, failure: str, operation: str) -> Any:
        if failure == "crash":
            raise OnPurpose(f"the chaos plugin crashed this {operation} on purpose")
        if failure == "hang":
            await asyncio.sleep(_HANG_SECONDS)
        return self._luck.choice(_GARBAGE)
