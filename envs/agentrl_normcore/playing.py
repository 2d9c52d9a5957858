"""Plays episodes of gyms for the rules of gyms: side by side, by whatever answers observations."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from agentrl import Action, Observation, Outcome, Task
from agentrl.testing.rules import in_time, no_exception

from .env import Normcore

# Returns what to do next; None leaves the episode as it is.
Act = Callable[[Observation], str | None]
# More turns than any expert needs.
ENDLESS = 250
SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """A task, who plays it, and what that is called."""

    task: Task
    act: Act
    name: str = "the expert"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Episode:
    """What was shown and done, and how it was judged."""

    run: Run = field(compare=False)
    observations: tuple[Observation, ...]
    actions: tuple[str, ...]
    outcome: Outcome

    def __str__(self) -> str:
        return f"{self.run.name} in task {self.run.task.id!r}, seed {self.run.seed}"


def expert_run(task: Task, seed: int = 0) -> Run:
    """Return the run of the gym's expert."""
    return Run(task, Normcore().demonstrate(task), seed=seed)


def replay(episode: Episode) -> Run:
    """Return a run that does once more what was done."""
    left = iter(episode.actions)
    return Run(episode.run.task, lambda _: next(left, None), "the same actions", episode.run.seed)


async def play_all(runs: Sequence[Run], envs: int) -> list[Episode]:
    """Play all runs, in so many envs, and return the episodes in their order.

    Raises:
        RuleBroken: of the run that broke a rule first.
    """
    waiting: Iterator[tuple[int, Run]] = iter(enumerate(runs))
    ended: dict[int, Episode] = {}

    async def work() -> None:
        env = Normcore()
        try:
            for number, run in waiting:
                ended[number] = await play(env, run)
        finally:
            with suppress(Exception):  # what went wrong before is what counts
                await env.close()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(envs, len(runs))):
                group.create_task(work())
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several.exceptions[0].__cause__
    return [ended[number] for number in range(len(runs))]


async def play(env: Normcore, run: Run) -> Episode:
    """Play one run.

    Raises:
        RuleBroken: the gym raises, or takes too long.
    """
    what = f"{run.name} in task {run.task.id!r}"
    actions: list[str] = []
    with no_exception(what, "let answer raise Refusal for what it does not do, and policies wait or give up"):
        seen = [await in_time(env.reset(run.task, run.seed), SECONDS, what)]
        while not seen[-1].done and len(actions) < ENDLESS and (text := run.act(seen[-1])) is not None:
            actions.append(text)
            seen.append(await in_time(env.step(Action(text)), SECONDS, what))
        return Episode(run, tuple(seen), tuple(actions), await env.judge())
