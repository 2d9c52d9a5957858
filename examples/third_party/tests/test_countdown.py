"""The plugin keeps the rules of agentrl, and does what it says."""

import asyncio

import pytest
from agentrl_countdown import Countdown
from agentrl_countdown.branch_credit import BranchCredit
from agentrl_countdown.partial_credit import PartialCredit

from agentrl import Action, Batch, Group, Outcome, Task
from agentrl.testing import check_algorithm, check_env, check_reward, make_trajectory


@pytest.mark.parametrize("length", [1, 4, 6])
def test_the_env_keeps_the_rules_of_envs(length: int) -> None:
    check_env(lambda: Countdown(Countdown.Config(length=length)))


def test_the_reward_keeps_the_rules_of_rewards() -> None:
    check_reward(PartialCredit)


def test_the_algorithm_keeps_the_rules_of_algorithms() -> None:
    check_algorithm(BranchCredit)


def test_credit_falls_where_trajectories_part_and_sums_up_to_the_advantage() -> None:
    played = [("a", "b"), ("a", "b"), ("a", "c"), ("d", "b")]
    rewards = [1.0, 1.0, 0.0, 0.0]
    group = Group(
        Task("t"), [make_trajectory(actions, reward=r) for actions, r in zip(played, rewards, strict=True)]
    )
    credits = BranchCredit().credit(Batch([group]))[0]
    # Three and two tokens were sampled in the two turns; V is 1/2, then 2/3 after a, 0 after d, then 1 or 0.
    first = [1 / 2, 2 / 3]
    expected = [
        [first[1] - first[0]] * 3 + [1 - first[1]] * 2,
        [first[1] - first[0]] * 3 + [1 - first[1]] * 2,
        [first[1] - first[0]] * 3 + [0 - first[1]] * 2,
        [0 - first[0]] * 3 + [0] * 2,
    ]
    for credit, numbers in zip(credits, expected, strict=True):
        assert credit.advantages == pytest.approx(numbers)


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
