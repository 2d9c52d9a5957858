"""The env keeps the rules of agentrl, though its world plays in another virtual environment."""

import asyncio

from agentrl_forms import Forms

from agentrl import Action
from agentrl.testing import check_env


def test_the_env_keeps_the_rules_of_envs() -> None:
    check_env(Forms, tasks=2)


def test_a_child_may_not_hand_in_a_form_and_is_told_by_the_old_library() -> None:
    async def play() -> str:
        env = Forms()
        try:
            await env.reset(env.tasks("train")[0], seed=0)
            return (await env.step(Action('{"name": "Ada", "age": 7}'))).text
        finally:
            await env.close()

    assert asyncio.run(play()) == "Not accepted: age: must be at least 18"
