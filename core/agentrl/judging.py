"""Scores trajectories: every reward on every trajectory, weighted, summed, adjusted by hooks.

The simulator has each trajectory judged as soon as it was played, while others still play: a reward that
waits for something, such as a model that is asked over the network, keeps no episode waiting.
"""

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from agentrl.errors import AgentRLError, Unjudged
from agentrl.hooks import Hooks
from agentrl.interfaces import Reward
from agentrl.together import all_of
from agentrl.types import Trajectory

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """A reward under its name, with its weight in the sum; weight 0 makes it a metric.

    `told` holds what was said of it in warnings, so that it is said once.
    """

    name: str
    reward: Reward
    weight: float
    told: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores a trajectory with all rewards, side by side.

    Without `hooks` the reward is the weighted sum alone, which is what is measured on held-out tasks: what
    hooks and algorithms add shapes the training.
    """

    rewards: Sequence[WeightedReward]
    hooks: Hooks | None = None

    async def __call__(self, trajectory: Trajectory) -> None:
        """Set `rewards` and `reward`, unless the trajectory failed.

        One that a reward cannot judge fails, for nobody knows what it would teach; a reward of weight 0 is
        left out of it instead.

        Raises:
            AgentRLError: a reward raised or gave no finite number; it names reward and task.
        """
        if trajectory.failed:
            return
        try:
            scores = await all_of(self._score(each, trajectory) for each in self.rewards)
        except Unjudged as cause:
            trajectory.error = str(cause)
            return
        total = 0.0
        for weighted, score in zip(self.rewards, scores, strict=True):
            if score is not None:
                trajectory.rewards[weighted.name] = score
                total += weighted.weight * score
        trajectory.reward = total + (self.hooks.adjust_reward(trajectory) if self.hooks else 0.0)

    async def _score(self, weighted: WeightedReward, trajectory: Trajectory) -> float | None:
        """Return the score; None if the trajectory cannot be judged, and need not be."""
        try:
            return await _score(weighted, trajectory)
        except Unjudged as error:
            cause = f"the reward {weighted.name!r} could not judge it: {error}"
            if weighted.weight:
                raise Unjudged(cause) from error
            if "unjudged" not in weighted.told:
                weighted.told.add("unjudged")
                _log.warning("a trajectory of task %r has no such score: %s", trajectory.task.id, cause)
            return None


@asynccontextmanager
async def started(
    rewards: Sequence[WeightedReward], folder: Path | None
) -> AsyncIterator[Sequence[WeightedReward]]:
    """Start the rewards, and close them at the end.

    Args:
        rewards: all of the run.
        folder: where each may leave files, in a folder of its name; None if nothing is kept.

    Raises:
        AgentRLError: one cannot begin; it names the reward.
    """
    async with AsyncExitStack() as closing:
        for each in rewards:
            closing.push_async_callback(each.reward.close)
            await _start(each, folder / each.name if folder else None)
        yield rewards


async def _start(weighted: WeightedReward, folder: Path | None) -> None:
    await _named(weighted.reward.start(folder), f"reward {weighted.name!r}")


async def _score(weighted: WeightedReward, trajectory: Trajectory) -> float:
    where = f"reward {weighted.name!r} on task {trajectory.task.id!r}"
    score = float(await _named(weighted.reward.score(trajectory), where))
    if not math.isfinite(score):
        raise AgentRLError(f"{where} gave {score}; a reward must be a finite number")
    return score


async def _named(awaitable: Awaitable[T], where: str) -> T:
    """Return what is awaited; whatever it raises says where it was."""
    try:
        return await awaitable
    except Unjudged:
        raise
    except AgentRLError as error:
        error.args = (f"{where}: {error}",)
        raise
    except Exception as error:
        raise AgentRLError(f"{where} raised {type(error).__name__}: {error}") from error
