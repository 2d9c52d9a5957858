import asyncio

import pytest

from agentrl import Group, Outcome, Task, Trajectory, hookimpl
from agentrl.early_signs import rewards_between, sign_of_overfitting
from agentrl.evaluation import Evaluation
from agentrl.hooks import Hooks
from agentrl.judging import judge
from agentrl.statistics import Estimate


def evaluation(success: float, spread: float = 0.1) -> Evaluation:
    found = Estimate(success, success - spread, success + spread, 50)
    return Evaluation("dev", 50, 50, 0, {"success": found})


def test_rewards_are_of_the_updates_between_two_evaluations() -> None:
    rows = [{"step": step, "reward": step / 10} for step in range(1, 7)] + [{"step": 7, "reward": None}]
    assert rewards_between(rows, 2, 7) == [0.3, 0.4, 0.5, 0.6]
    assert rewards_between(rows, 7, 7) == []


def test_a_reward_that_rises_while_held_out_success_falls_is_a_sign() -> None:
    sign = sign_of_overfitting([0.1, 0.2, 0.3, 0.4], evaluation(0.5), evaluation(0.3))
    assert sign is not None
    assert "rose from 0.150 to 0.350" in sign
    assert "fell from 0.500 to 0.300" in sign


@pytest.mark.parametrize(
    ("rewards", "before", "now"),
    [
        ([0.4, 0.3, 0.2], 0.5, 0.3),
        ([0.1, 0.2, 0.3], 0.5, 0.41),
        ([0.1, 0.2, 0.3], 0.5, 0.7),
        ([0.1], 0.5, 0.1),
        ([], 0.5, 0.1),
    ],
)
def test_nothing_else_is(rewards: list[float], before: float, now: float) -> None:
    assert sign_of_overfitting(rewards, evaluation(before), evaluation(now)) is None


def test_held_out_rewards_are_without_what_hooks_add() -> None:
    class Penalty:
        @hookimpl
        def adjust_reward(self) -> float:
            return -1.0

    trajectory = Trajectory(Task("a"), outcome=Outcome(success=True))
    groups = [Group(trajectory.task, [trajectory])]
    asyncio.run(judge(groups, [], Hooks(plugins=[Penalty()], installed=False)))
    assert trajectory.reward == -1
    asyncio.run(judge(groups, []))
    assert trajectory.reward == 0
