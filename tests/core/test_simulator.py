"""Episodes side by side: order, seeds, limits, and envs and agents that misbehave."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentrl import Action, Agent, AgentRLError, Conversation, Env, Group, Observation, Outcome, Task, user
from agentrl.config import SimulatorConfig
from agentrl.hooks import Hooks
from agentrl.hosting.pool import InProcessPool
from agentrl.simulator import Simulator
from agentrl.steps import steps
from agentrl.testing.engines import ScriptedEngine
from agentrl.types import Completion, Sampling


class Countdown(Env):
    """Is over after as many steps as the task says; succeeds if every action was `tick`."""

    made = 0

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        type(self).made += 1

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(str(n), split, {"steps": n}) for n in range(1, 4)]

    async def reset(self, task: Task, seed: int) -> Observation:
        self.left, self.right = task.data["steps"], True
        return Observation(f"{self.left} to go")

    async def step(self, action: Action) -> Observation:
        self.left -= 1
        self.right &= action.text == "tick"
        return Observation(f"{self.left} to go", done=self.left == 0)

    async def judge(self) -> Outcome:
        return Outcome(success=self.right and self.left == 0)


class Talker(Agent):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        conversation.say(user(observation.text))
        return Action(await conversation.ask())


def play(
    env: type[Env],
    agent: type[Agent] = Talker,
    engine: ScriptedEngine | None = None,
    group_size: int | Sequence[int] = 2,
    tasks: Sequence[Task] | None = None,
    warnings: list[str] | None = None,
    *,
    alike: bool = False,
    **limits: Any,
) -> list[Group]:
    async def run() -> list[Group]:
        pool = InProcessPool(env, size=4)
        simulator = Simulator(
            pool,
            agent,
            engine or ScriptedEngine(lambda text: "tick"),
            SimulatorConfig(**limits),
            Hooks(installed=False),
            (warnings if warnings is not None else []).append,
        )
        groups = await simulator.play(tasks or env().tasks("train"), group_size, seed=7, alike=alike)
        await pool.close()
        return groups

    return asyncio.run(run())


def test_groups_come_back_in_the_order_of_the_tasks_with_one_seed_an_episode() -> None:
    groups = play(Countdown)
    assert [group.task.id for group in groups] == ["1", "2", "3"]
    trajectories = [t for group in groups for t in group.trajectories]
    assert [len(t.turns) for t in trajectories] == [1, 1, 2, 2, 3, 3]
    assert all(t.outcome and t.outcome.success and t.stop == "done" for t in trajectories)
    assert len({t.seed for t in trajectories}) == 6
    assert [t.seed for t in trajectories] == [t.seed for group in play(Countdown) for t in group.trajectories]


def test_trajectories_that_begin_alike_share_the_seed_of_the_env_and_not_that_of_sampling() -> None:
    seeds = []

    class Noting(ScriptedEngine):
        async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
            seeds.append(sampling.seed)
            return await super().generate(token_ids, sampling, session)

    twice = [
        Task("1", "train", {"steps": 1}),
        Task("2", "train", {"steps": 1}),
        Task("1", "train", {"steps": 1}),
    ]
    groups = play(Countdown, engine=Noting(lambda text: "tick"), tasks=twice, group_size=3, alike=True)
    assert len(set(seeds)) == 9
    assert [len({t.seed for t in group.trajectories}) for group in groups] == [1, 1, 1]
    assert len({group.trajectories[0].seed for group in groups}) == 3
    apart = play(Countdown, tasks=twice, group_size=3)
    assert not {t.seed for group in apart for t in group.trajectories} & {
        group.trajectories[0].seed for group in groups
    }


def test_groups_may_differ_in_size() -> None:
    groups = play(Countdown, group_size=[1, 3, 2])
    assert [len(group.trajectories) for group in groups] == [1, 3, 2]
    assert all(t.task == group.task for group in groups for t in group.trajectories)
    seeds = [
        [t.seed for group in play(Countdown, group_size=size) for t in group.trajectories]
        for size in (2, [2, 2, 2])
    ]
    assert seeds[0] == seeds[1]


def test_an_episode_ends_at_the_turn_limit_and_is_judged() -> None:
    (*_, last) = play(Countdown, max_turns=2)
    for trajectory in last.trajectories:
        assert (trajectory.stop, len(trajectory.turns)) == ("max_turns", 2)
        assert trajectory.outcome is not None
        assert not trajectory.outcome.success
        assert trajectory.final == Observation("1 to go")


def test_an_action_gets_the_key_that_the_env_has_for_it() -> None:
    class Knowing(Countdown):
        async def step(self, action: Action) -> Observation:
            key = "tick" if action.text.strip() == "tick" and self.left != 2 else None
            return replace(await super().step(action), action_key=key)

    class Keyed(Talker):
        async def act(self, observation: Observation, conversation: Conversation) -> Action:
            return replace(await super().act(observation, conversation), key="the agent's")

    (*_, last) = play(Knowing, Keyed)
    for trajectory in last.trajectories:
        assert [turn.action.key for turn in trajectory.turns] == ["tick", "the agent's", "tick"]
        assert [step.action for step in steps(trajectory)] == ["key:tick", "key:the agent's", "key:tick"]


def test_an_episode_ends_when_its_tokens_are_spent() -> None:
    (*_, last) = play(Countdown, max_tokens=7)
    assert {(t.stop, t.sampled) for t in last.trajectories} == {("max_tokens", 7)}


def test_a_crash_ends_one_trajectory_and_names_its_cause() -> None:
    class Fragile(Countdown):
        async def step(self, action: Action) -> Observation:
            if self.left == 2:
                raise RuntimeError("the disk is gone")
            return await super().step(action)

    groups = play(Fragile)
    errors = [[t.error for t in group.trajectories] for group in groups]
    assert errors[0] == [None, None]
    assert errors[1] == ["env.step at turn 1 raised RuntimeError: the disk is gone"] * 2
    assert errors[2] == ["env.step at turn 2 raised RuntimeError: the disk is gone"] * 2
    assert [t.failed for t in groups[1].trajectories] == [True, True]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (None, "env.step at turn 1 returned None, not an Observation"),
        ({"text": "x"}, ", not an Observation"),
        (Observation(3), "Observation.text"),  # type: ignore[arg-type]
    ],
)
def test_nonsense_ends_one_trajectory(answer: Any, cause: str) -> None:
    class Nonsense(Countdown):
        async def step(self, action: Action) -> Observation:
            return answer  # type: ignore[no-any-return]

    for group in play(Nonsense):
        assert all(t.error is not None and cause in t.error for t in group.trajectories)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit("bye")])
def test_not_even_an_env_that_cancels_or_exits_ends_more_than_its_trajectory(error: BaseException) -> None:
    class Rude(Countdown):
        async def step(self, action: Action) -> Observation:
            if self.left == 2:
                raise error
            return await super().step(action)

    groups = play(Rude)
    assert [t.failed for group in groups for t in group.trajectories] == [False] * 2 + [True] * 4
    assert f"raised {type(error).__name__}" in str(groups[1].trajectories[0].error)


def test_an_episode_that_is_over_before_it_began_is_an_error() -> None:
    class Finished(Countdown):
        async def reset(self, task: Task, seed: int) -> Observation:
            return Observation("nothing to do", done=True)

    assert "already done" in str(play(Finished)[0].trajectories[0].error)


def test_a_hang_ends_one_trajectory_and_its_env_is_not_used_again() -> None:
    class Sleepy(Countdown):
        made = 0

        async def step(self, action: Action) -> Observation:
            if self.left == 3:
                await asyncio.sleep(60)
            return await super().step(action)

    groups = play(Sleepy, step_timeout=0.05)
    assert [t.error for t in groups[2].trajectories] == ["env.step at turn 1 took longer than 0.05 s"] * 2
    assert not any(t.failed for group in groups[:2] for t in group.trajectories)


def test_a_failing_reset_is_tried_again_with_a_fresh_env() -> None:
    class Moody(Countdown):
        resets = 0

        async def reset(self, task: Task, seed: int) -> Observation:
            type(self).resets += 1
            if type(self).resets % 2:
                raise ConnectionError("not yet")
            return await super().reset(task, seed)

    groups = play(Moody, group_size=1, concurrency=1)
    assert not any(t.failed for group in groups for t in group.trajectories)
    assert Moody.resets == 6


def test_a_reset_that_always_fails_ends_in_an_error() -> None:
    class Dead(Countdown):
        async def reset(self, task: Task, seed: int) -> Observation:
            raise ConnectionError("refused")

    trajectory = play(Dead, group_size=1)[0].trajectories[0]
    assert trajectory.error == "env.reset at turn 0 raised ConnectionError: refused"


def test_a_raising_agent_ends_one_trajectory_but_a_prompt_that_can_never_fit_stops_the_run() -> None:
    class Clumsy(Talker):
        async def act(self, observation: Observation, conversation: Conversation) -> Action:
            raise KeyError("memory")

    assert "agent.act at turn 0 raised KeyError" in str(play(Countdown, Clumsy)[0].trajectories[0].error)
    engine = ScriptedEngine(lambda text: "tick", context_length=8)
    with pytest.raises(AgentRLError, match="the first prompt has"):
        play(Countdown, engine=engine)


def test_a_dead_engine_stops_the_run() -> None:
    def die(text: str) -> str:
        raise OSError("no GPU left")

    with pytest.raises(AgentRLError, match="the engine failed with OSError: no GPU left"):
        play(Countdown, engine=ScriptedEngine(die))


def test_the_watchdog_names_what_is_stuck() -> None:
    class Slow(Countdown):
        async def step(self, action: Action) -> Observation:
            await asyncio.sleep(0.4)
            return await super().step(action)

    warnings: list[str] = []
    play(Slow, group_size=1, tasks=[Task("1", "train", {"steps": 1})], warnings=warnings, watchdog=0.1)
    assert len(warnings) == 1
    assert "episode 00000 of task 1: env.step at turn 1 has been waiting" in warnings[0]


def test_an_agent_is_closed_once_however_its_episode_ends() -> None:
    closed: list[str] = []

    class Closing(Talker):
        how = "well"

        async def act(self, observation: Observation, conversation: Conversation) -> Action:
            if self.how == "failing":
                raise OSError("lost")
            if self.how == "hanging":
                await asyncio.sleep(3600)
            return await super().act(observation, conversation)

        async def close(self) -> None:
            closed.append(self.how)
            if self.how == "unable":
                raise OSError("still busy")

    for how, error in (
        ("well", None),
        ("failing", "agent.act at turn 0 raised OSError: lost"),
        ("hanging", "agent.act at turn 0 took longer than 0.1 s"),
        ("unable", "agent.close at turn 1 raised OSError: still busy"),
    ):
        Closing.how = how
        one = [Task("1", "train", {"steps": 1})]
        limits = {"act_timeout": 0.1} if how == "hanging" else {}
        (group,) = play(Countdown, Closing, group_size=1, tasks=one, **limits)
        assert group.trajectories[0].error == error
    assert closed == ["well", "failing", "hanging", "unable"]
