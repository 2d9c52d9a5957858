"""The env keeps the rules of envs, and judges as it says."""

import asyncio

import pytest
from agentrl import Action, Outcome
from agentrl.testing import check_env

from agentrl_my_env import MyEnv


@pytest.mark.parametrize("people", [1, 3, 6])
def test_it_keeps_the_rules_of_envs(people: int) -> None:
    """Play, break and judge it as agentrl will; whatever is wrong is said with its remedy."""
    config = MyEnv.Config(people=people)
    check_env(lambda: MyEnv(config))


def test_what_was_answered_wrongly_or_not_at_all_counts_as_failed() -> None:
    """Answer one question rightly, one wrongly and one not at all."""

    async def play() -> Outcome:
        env = MyEnv()
        await env.reset(env.tasks("train")[0], seed=0)
        await env.step(Action(f"{env.order[0]} {env.rooms[env.order[0]]}"))
        await env.step(Action(f"{env.order[1]} nowhere"))
        return await env.judge()

    outcome = asyncio.run(play())
    assert not outcome.success
    assert (len(outcome.passed), len(outcome.failed)) == (1, 2)
