"""Rewards at work beside the episodes: nobody waits for a slow one; what cannot be judged teaches nothing."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrl import (
    Action,
    Agent,
    AgentRLError,
    Conversation,
    Env,
    Observation,
    Outcome,
    Reward,
    Task,
    Trajectory,
    Unjudged,
    UsageError,
)
from agentrl.config import SimulatorConfig
from agentrl.hooks import Hooks
from agentrl.hosting.pool import InProcessPool
from agentrl.judging import Judge, WeightedReward, started
from agentrl.simulator import Simulator
from agentrl.testing.engines import ScriptedEngine
from agentrl.together import all_of


class Once(Env):
    """Takes one action."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(str(number), split) for number in range(30)]

    async def reset(self, task: Task, seed: int) -> Observation:
        return Observation("go")

    async def step(self, action: Action) -> Observation:
        for _ in range(5):
            await asyncio.sleep(0)
        return Observation("", done=True)

    async def judge(self) -> Outcome:
        return Outcome(success=True)


class Noting(Agent):
    """Acts without asking the model, and notes it."""

    acted: list[str] = []

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        self.acted.append(conversation.session)
        return Action("")


class Scored(Reward):
    """Scores with what a function returns or raises, and notes when it is started and closed."""

    def __init__(self, score: Callable[[Trajectory], Any] = lambda trajectory: 1.0, **notes: Any) -> None:
        super().__init__()
        self._score, self.notes = score, notes

    async def start(self, folder: Path | None) -> None:
        self.notes["folder"] = folder
        if "fails" in self.notes:
            raise self.notes["fails"]

    async def score(self, trajectory: Trajectory) -> float:
        found = self._score(trajectory)
        return float(await found if asyncio.iscoroutine(found) else found)

    async def close(self) -> None:
        self.notes["closed"] = True


def weighted(score: Callable[[Trajectory], Any], weight: float = 1.0, name: str = "slow") -> WeightedReward:
    return WeightedReward(name, Scored(score), weight)


def play(
    *rewards: WeightedReward, tasks: int = 3, watchdog: float = 60.0, warnings: list[str] | None = None
) -> list[Trajectory]:
    """Play three episodes, one after the other, with a judge."""
    Noting.acted = []

    async def run() -> list[Trajectory]:
        simulator = Simulator(
            InProcessPool(Once, size=1),
            Noting,
            ScriptedEngine([]),
            SimulatorConfig(watchdog=watchdog),
            Hooks(installed=False),
            (warnings if warnings is not None else []).append,
        )
        groups = await simulator.play(Once().tasks("train")[:tasks], 1, seed=7, judge=Judge(rewards))
        return [group.trajectories[0] for group in groups]

    return asyncio.run(asyncio.wait_for(run(), 60))


def trajectories(count: int = 2) -> list[Trajectory]:
    return [Trajectory(Task(str(number)), outcome=Outcome(success=True)) for number in range(count)]


def judged(played: Sequence[Trajectory], *rewards: WeightedReward) -> None:
    asyncio.run(all_of(Judge(rewards)(each) for each in played))


async def until(true: Callable[[], bool]) -> float:
    while not true():
        await asyncio.sleep(0)
    return 0.5


def test_episodes_are_played_on_while_a_slow_reward_judges() -> None:
    # The first verdict comes only when the last episode is played.
    played = play(weighted(lambda trajectory: until(lambda: len(Noting.acted) == 3)))
    assert [trajectory.reward for trajectory in played] == [0.5, 0.5, 0.5]


def test_rewards_judge_side_by_side() -> None:
    began: set[str] = set()

    def wait_for(own: str, other: str) -> WeightedReward:
        def score(trajectory: Trajectory) -> Any:
            began.add(own)
            return until(lambda: other in began)

        return weighted(score, 2.0, own)

    (trajectory,) = trajectories(1)
    judged([trajectory], wait_for("a", "b"), wait_for("b", "a"))
    assert trajectory.rewards == {"a": 0.5, "b": 0.5}
    assert list(trajectory.rewards) == ["a", "b"]
    assert trajectory.reward == 2


def test_a_reward_that_raises_ends_the_rollout_at_once_and_is_named() -> None:
    def broken(trajectory: Trajectory) -> float:
        raise ValueError("no")

    with pytest.raises(AgentRLError, match="reward 'slow' on task '0' raised ValueError: no"):
        play(weighted(broken), tasks=30)
    assert len(Noting.acted) < 30


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_finite_number_is_an_error(score: float) -> None:
    with pytest.raises(AgentRLError, match=r"reward 'slow' on task '0' gave .*must be a finite number"):
        judged(trajectories(), weighted(lambda trajectory: score))


def test_a_judge_that_lasts_is_named_by_the_watchdog() -> None:
    warnings: list[str] = []

    play(weighted(lambda trajectory: until(lambda: bool(warnings))), watchdog=0.01, warnings=warnings)
    assert any("the judgement has been waiting" in each for each in warnings)


def test_what_cannot_be_judged_teaches_nothing() -> None:
    def unsure(trajectory: Trajectory) -> float:
        if trajectory.task.id == "0":
            raise Unjudged("the endpoint is gone")
        return 1.0

    first, second = trajectories()
    judged([first, second], weighted(unsure), weighted(lambda trajectory: 1.0, name="other"))
    assert (first.failed, first.played, first.stop) == (True, True, "done")
    assert first.error == "the reward 'slow' could not judge it: the endpoint is gone"
    assert (first.rewards, first.reward) == ({}, 0.0)
    assert (second.failed, second.reward) == (False, 2.0)


def test_a_metric_that_cannot_be_had_is_left_out_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def unsure(trajectory: Trajectory) -> float:
        raise Unjudged("the endpoint is gone")

    played = trajectories()
    with caplog.at_level(logging.WARNING):
        judged(played, weighted(unsure, 0.0), weighted(lambda trajectory: 1.0, name="other"))
    assert [each.rewards for each in played] == [{"other": 1.0}] * 2
    assert not any(each.failed for each in played)
    assert len(caplog.messages) == 1


def test_rewards_are_started_with_a_folder_each_and_closed_whatever_happens() -> None:
    first, second, third = (WeightedReward(name, Scored(), 1.0) for name in "abc")
    second.reward.notes["fails"] = UsageError("nobody answers")  # type: ignore[attr-defined]

    async def start() -> None:
        async with started([first, second, third], Path("kept")):
            pytest.fail("a reward could not start")

    with pytest.raises(UsageError, match="reward 'b': nobody answers"):
        asyncio.run(start())
    assert first.reward.notes == {"folder": Path("kept/a"), "closed": True}  # type: ignore[attr-defined]
    assert second.reward.notes["closed"]  # type: ignore[attr-defined]
    assert third.reward.notes == {}  # type: ignore[attr-defined]
