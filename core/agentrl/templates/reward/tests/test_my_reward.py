"""The reward keeps the rules of rewards, and scores as it says."""

import asyncio

from agentrl.testing import check_reward, make_trajectory

from agentrl_my_reward import MyReward


def test_it_keeps_the_rules_of_rewards() -> None:
    """Score trajectories of every sort; whatever is wrong is said with its remedy."""
    check_reward(MyReward)


def test_further_turns_cost_something() -> None:
    """Score a success in four turns, of which two cost nothing."""
    config = MyReward.Config(turns=2)
    trajectory = make_trajectory(["look"] * 4, lengths=[1] * 4)
    assert asyncio.run(MyReward(config).score(trajectory)) == 0.5
