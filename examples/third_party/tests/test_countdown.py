"""The plugin keeps the rules of agentrl, and does what it says."""

import asyncio

import pytest
from agentrl_countdown import Countdown
from agentrl_countdown.partial_credit import PartialCredit

from agentrl import Action, Outcome
from agentrl.testing import check_env, check_reward, make_trajectory


@pytest.mark.parametrize("length", [1, 4, 6])
def test_the_env_keeps_the_rules_of_envs(length: int) -> None:
    check_env(lambda: Countdown(Countdown.Config(length=length)))


def test_the_reward_keeps_the_rules_of_rewards() -> None:
    check_reward(PartialCredit)


def test_what_was_read_wrongly_or_not_at_all_counts_as_failed() -> None:
    async def play() -> Outcome:
        env = Countdown(Countdown.Config(length=3))
        task = env.tasks("train")[0]
        await env.reset(task, seed=0)
        await env.step(Action(f"3 {task.data['items'][2]}"))
        await env.step(Action("2 pink elephant"))
        return await env.judge()

    assert asyncio.run(play()) == Outcome(False, passed=("item 3",), failed=("item 2", "item 1"))


def test_half_right_is_worth_half() -> None:
    trajectory = make_trajectory()
    trajectory.outcome = Outcome(False, passed=("a", "b"), failed=("c", "d"))
    assert asyncio.run(PartialCredit().score(trajectory)) == 0.5
