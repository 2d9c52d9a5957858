"""The chaos plugin breaks what it is told to break, as often as it is told, and the same way each time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agentrl import Action, Env, Observation, Outcome, Task, UsageError
from agentrl.hooks import Hooks
from agentrl.hosting import Nonsense, check_observation
from agentrl.options import check_options
from agentrl_chaos import Chaos, OnPurpose

TASK = Task("calm")


class Calm(Env):
    """Never fails."""

    closed = False

    def tasks(self, split: str) -> Sequence[Task]:
        return [TASK]

    async def reset(self, task: Task, seed: int) -> Observation:
        return Observation("calm")

    async def step(self, action: Action) -> Observation:
        return Observation("calm")

    async def judge(self) -> Outcome:
        return Outcome(True)

    def demonstrate(self, task: Task) -> Sequence[str]:
        return ["breathe"]

    def explain(self, task: Task) -> str:
        return "breathe, and go on breathing"

    async def close(self) -> None:
        self.closed = True


def chaos(**rates: Any) -> Chaos:
    return Chaos(Chaos.Config(**rates))


def fates(plugin: Chaos, seed: int = 0, task: Task = TASK, calls: int = 400) -> list[str]:
    """Return what happened at each call of an episode."""

    async def fate(env: Env, number: int) -> str:
        call = env.step(Action("go")) if number else env.reset(task, seed)
        try:
            observation = await asyncio.wait_for(call, 0.005)
        except OnPurpose:
            return "crash"
        except TimeoutError:
            return "hang"
        try:
            return check_observation(observation, "it").text
        except Nonsense:
            return "garbage"

    async def episode() -> list[str]:
        env = plugin.wrap_env(Calm(), task, seed)
        assert env is not None
        return [await fate(env, number) for number in range(calls)]

    return asyncio.run(episode())


def test_without_rates_envs_are_left_alone() -> None:
    env = Calm()
    assert chaos().wrap_env(env, TASK, 1) is None
    assert Hooks(plugins=[chaos()], installed=False).wrap_env(env, TASK, 1) is env


def test_each_misfortune_comes_about_as_often_as_was_asked() -> None:
    seen = fates(chaos(crash=0.2, hang=0.1, garbage=0.3))
    shares = {fate: seen.count(fate) / len(seen) for fate in ("crash", "hang", "garbage", "calm")}
    assert shares == pytest.approx({"crash": 0.2, "hang": 0.1, "garbage": 0.3, "calm": 0.4}, abs=0.08)


@pytest.mark.parametrize("fate", ["crash", "hang", "garbage"])
def test_what_is_certain_happens_at_every_reset_and_step(fate: str) -> None:
    assert set(fates(chaos(**{fate: 1.0}), calls=5)) == {fate}


def test_misfortunes_depend_on_seed_episode_and_task_and_on_nothing_else() -> None:
    plugin = chaos(crash=0.5)
    first = fates(plugin, calls=64)
    assert fates(plugin, calls=64) == first
    assert fates(plugin, seed=1, calls=64) != first
    assert fates(plugin, task=Task("other"), calls=64) != first
    assert fates(chaos(crash=0.5, seed=1), calls=64) != first


def test_all_else_is_the_env_that_was_wrapped() -> None:
    inner = Calm()
    env = chaos(crash=1.0).wrap_env(inner, TASK, 0)
    assert env is not None
    assert (env.tasks("train"), env.demonstrate(TASK), env.fingerprint()) == ([TASK], ["breathe"], {})
    assert env.explain(TASK) == "breathe, and go on breathing"
    assert asyncio.run(env.judge()) == Outcome(True)
    asyncio.run(env.close())
    assert inner.closed


@pytest.mark.parametrize(
    ("rates", "problem"),
    [
        ({"crash": 0.6, "hang": 0.6}, "add up to more than 1"),
        ({"crash": 1.5}, "'hooks.chaos.crash' must be at most 1"),
        ({"crahs": 0.5}, "did you mean 'hooks.chaos.crash'"),
    ],
)
def test_rates_that_make_no_sense_are_refused(rates: dict[str, float], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        check_options(Chaos.Config, rates, "hook 'chaos'", "hooks.chaos")
