"""Plays envs for the rules of envs, holding every operation to what every operation owes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from agentrl.expert import Script
from agentrl.hosting.codec import Nonsense, check_observation, check_outcome
from agentrl.hosting.elsewhere import RemoteEnv
from agentrl.interfaces import Env, Expert
from agentrl.testing.rules import RuleBroken, in_time, no_exception
from agentrl.types import Action, Observation, Outcome, Task

NONSENSE = (
    "",
    "   \n",
    "lorem ipsum",
    "<answer>",
    "</answer></search><search>",
    '{"action": null, "x": [',
    "\x00\x1b[31m\ud800\U0001f40d",
    "'; DROP TABLE tasks; --",
    "-1",
    "nan",
)
HUGE = "open the door " * 100_000
# More turns than any expert needs.
ENDLESS = 500


@dataclass(frozen=True, slots=True)
class Episode:
    """What an env showed in an episode, what it judged, and what was done in it."""

    observations: tuple[Observation, ...]
    outcome: Outcome
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnvUnderTest:
    """Makes and plays the envs that are looked at.

    Envs whose worlds live in another virtual environment play in the workers of one of them, as in a run: an
    episode has a process of its own there, and workers take much longer to start than episodes to play.
    """

    make: Callable[[], Env]
    splits: Sequence[str]
    count: int
    seconds: float
    episodes: int = 0
    hosts: list[RemoteEnv] = field(default_factory=list)

    @asynccontextmanager
    async def env(self, apart: bool = False) -> AsyncIterator[Env]:
        """Make a fresh env for a block; one that is `apart` shares nothing with others."""
        with no_exception("making the env", "let it be made without options, or check a function that does"):
            env = self.make()
            if isinstance(env, RemoteEnv) and not apart:
                env.play_beside(self._host())
        try:
            yield env
        finally:
            await self._close(env)

    def _host(self) -> RemoteEnv:
        if not self.hosts:
            host = self.make()
            assert isinstance(host, RemoteEnv)
            self.hosts.append(host)
        return self.hosts[0]

    async def close(self) -> None:
        """End the workers that were shared."""
        while self.hosts:
            await self._close(self.hosts.pop())

    async def _close(self, env: Env) -> None:
        with suppress(Exception):  # a rule of its own holds it to closing well
            await asyncio.wait_for(env.close(), self.seconds)

    def tasks(self, env: Env) -> list[Task]:
        """Return the tasks to play, of all splits."""
        return [task for split in self.splits for task in self.some(env, split, self.count)]

    def some(self, env: Env, split: str, count: int) -> list[Task]:
        """Return the first tasks of a split."""
        with no_exception(f"tasks({split!r})", "name your splits by the check's argument `splits`"):
            found = env.tasks(split)
            tasks = [found[index] for index in range(min(count, len(found)))]
        if not tasks:
            remedy = "fill it, or name your splits by the check's argument `splits`"
            raise RuleBroken("has tasks", f"split {split!r} is empty", remedy)
        return tasks

    async def reset(self, env: Env, task: Task, seed: int) -> Observation:
        """Begin an episode."""
        what = f"reset of task {task.id!r}"
        with no_exception(what, "let reset begin an episode whatever happened before"):
            answer: Any = await in_time(env.reset(task, seed), self.seconds, what)
        with _well_formed():
            return check_observation(answer, what)

    async def step(self, env: Env, text: str) -> Observation:
        """Act."""
        what = f"step({shorten(text)})"
        with no_exception(what, "answer nonsense with an observation that says what is wrong with it"):
            answer: Any = await in_time(env.step(Action(text)), self.seconds, what)
        with _well_formed():
            return check_observation(answer, what)

    async def judge(self, env: Env, when: str) -> Outcome:
        """Judge."""
        what = f"judge {when}"
        with no_exception(what, "judge what was done so far: episodes may be cut off after any turn"):
            answer: Any = await in_time(env.judge(), self.seconds, what)
        with _well_formed():
            return check_outcome(answer, what)

    async def play(self, env: Env, task: Task, actions: Sequence[str] | Expert, seed: int = 11) -> Episode:
        """Play `actions`, or what an expert says, up to the end of the episode."""
        expert, most = (actions, ENDLESS) if callable(actions) else (Script(actions), len(actions))
        observations, said = [await self.reset(env, task, seed)], list[str]()
        while len(said) < most and not observations[-1].done:
            said.append(_answer(expert, task, observations[-1]))
            observations.append(await self.step(env, said[-1]))
            await asyncio.sleep(0)
        outcome = await self.judge(env, f"after {len(said)} steps")
        return Episode(tuple(observations), outcome, tuple(said))

    async def play_alone(self, task: Task, actions: Sequence[str] | Expert) -> Episode:
        """Play `actions`, or what an expert says, in a fresh env."""
        async with self.env() as env:
            return await self.play(env, task, actions)

    def demonstration(self, env: Env, task: Task) -> list[str] | Expert | None:
        """Return what the expert would do, or the expert; None if there is none."""
        with no_exception(f"demonstrate({task.id!r})", "return None for a task that has no expert"):
            found = env.demonstrate(task)
            return found if found is None or callable(found) else list(found)

    async def script(self, env: Env, task: Task) -> list[str]:
        """Return actions that lead somewhere: the expert's if there is one, else nonsense."""
        found = self.demonstration(env, task)
        if callable(found):
            return list((await self.play_alone(task, found)).actions)
        return found or list(NONSENSE[2:6])


def _answer(expert: Expert, task: Task, observation: Observation) -> str:
    what = f"the expert of task {task.id!r}"
    with no_exception(what, "let the expert answer whatever the env shows it when it is obeyed"):
        text: object = expert(observation)
    if not isinstance(text, str):
        found = f"{what} answered {shorten(str(text))}, which is no text"
        raise RuleBroken("returns what its kind returns", found, "let the expert answer with a text")
    return text


@contextmanager
def _well_formed() -> Iterator[None]:
    try:
        yield
    except Nonsense as error:
        remedy = "see the types in agentrl.types"
        raise RuleBroken("returns what its kind returns", str(error), remedy) from error


def shorten(text: str) -> str:
    """Return the beginning of `text`, quoted."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."
