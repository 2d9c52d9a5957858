"""Scores trajectories: every reward on every trajectory, weighted, summed, adjusted by hooks."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentrl.errors import AgentRLError
from agentrl.hooks import Hooks
from agentrl.interfaces import Reward
from agentrl.types import Group, Trajectory


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """A reward under its name, with its weight in the sum; weight 0 makes it a metric."""

    name: str
    reward: Reward
    weight: float


async def judge(
    groups: Iterable[Group], rewards: Sequence[WeightedReward], hooks: Hooks | None = None
) -> None:
    """Set `rewards` and `reward` of every trajectory that did not fail.

    Without `hooks` the reward is the weighted sum alone, which is what is measured on held-out tasks: what
    hooks and algorithms add shapes the training.

    Raises:
        AgentRLError: a reward raised or gave no finite number; it names reward and task.
    """
    played = [t for group in groups for t in group.trajectories if not t.failed]
    await asyncio.gather(*(_judge_one(trajectory, rewards, hooks) for trajectory in played))


async def _judge_one(trajectory: Trajectory, rewards: Sequence[WeightedReward], hooks: Hooks | None) -> None:
    total = 0.0
    for weighted in rewards:
        score = await _score(weighted, trajectory)
        trajectory.rewards[weighted.name] = score
        total += weighted.weight * score
    trajectory.reward = total + (hooks.adjust_reward(trajectory) if hooks else 0.0)


async def _score(weighted: WeightedReward, trajectory: Trajectory) -> float:
    where = f"reward {weighted.name!r} on task {trajectory.task.id!r}"
    try:
        score = float(await weighted.reward.score(trajectory))
    except Exception as error:
        raise AgentRLError(f"{where} raised {type(error).__name__}: {error}") from error
    if not math.isfinite(score):
        raise AgentRLError(f"{where} gave {score}; a reward must be a finite number")
    return score
