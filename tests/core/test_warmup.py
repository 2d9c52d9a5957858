"""The warm start: who is imitated, and how often they are played."""

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from agentrl import (
    Action,
    Agent,
    Conversation,
    Env,
    Expert,
    Group,
    Observation,
    Outcome,
    Task,
    UsageError,
    user,
)
from agentrl.config import SimulatorConfig
from agentrl.hooks import Hooks
from agentrl.hosting.pool import InProcessPool
from agentrl.plugins import make
from agentrl.simulator import Simulator
from agentrl.testing.engines import ScriptedEngine
from agentrl.warmup import Demonstrator, warm_up


class Spelling(Env):
    """Wants the name of the task, letter by letter."""

    resets: ClassVar[list[str]] = []
    alphabet: ClassVar[str] = "abc"

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task(letter * 2, split) for letter in self.alphabet]

    async def reset(self, task: Task, seed: int) -> Observation:
        self.resets.append(task.id)
        self.left, self.right = task.id, True
        return Observation("spell")

    async def step(self, action: Action) -> Observation:
        self.right &= action.text.strip() == self.left[0]
        self.left = self.left[1:]
        return Observation("next", done=not self.left)

    async def judge(self) -> Outcome:
        return Outcome(success=self.right)

    def demonstrate(self, task: Task) -> Sequence[str] | Expert | None:
        return list(task.id)


class Dictating(Spelling):
    """Shows the letter that it wants, so that its experts have to look."""

    seen: ClassVar[list[list[str]]] = []

    async def reset(self, task: Task, seed: int) -> Observation:
        await super().reset(task, seed)
        return Observation(f"type {self.left[0]}")

    async def step(self, action: Action) -> Observation:
        await super().step(action)
        return Observation(f"type {self.left[0]}") if self.left else Observation("thanks", done=True)

    def demonstrate(self, task: Task) -> Expert:
        shown: list[str] = []
        self.seen.append(shown)

        def expert(observation: Observation) -> str:
            shown.append(observation.text)
            return observation.text[-1]

        return expert


class Talker(Agent):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        conversation.say(user(observation.text))
        return Action(await conversation.ask())


class Notes:
    """What a trainer was given, in place of one: learning itself is tested with the real trainer."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def prepare(self, groups: Sequence[Group], needs: frozenset[str]) -> Sequence[Group]:
        self.batches.append([group.task.id for group in groups])
        return groups

    def update(self, *unused: Any) -> dict[str, float]:
        return {}


class Nothing:
    needs: frozenset[str] = frozenset()

    def credit(self, batch: object) -> None:
        return None


def imitate(env: type[Spelling], updates: int, tasks: int) -> list[list[str]]:
    env.resets.clear()
    notes, played = Notes(), env()

    async def run() -> None:
        pool = InProcessPool(env, size=2)
        demonstrator = Demonstrator(ScriptedEngine(lambda text: "never asked"))
        simulator = Simulator(
            pool,
            lambda: demonstrator.guide(Talker()),
            demonstrator,
            SimulatorConfig(),
            Hooks(installed=False),
            lambda text: None,
        )
        curriculum = make("curriculum", "in_order", {})
        curriculum.start(played.tasks("train"), 0)
        arguments: Any = (notes, Nothing(), updates, tasks, lambda update, metrics: None)
        await warm_up(played, simulator, demonstrator, curriculum, *arguments)
        await pool.close()

    asyncio.run(run())
    return notes.batches


def test_a_demonstration_that_comes_again_is_learnt_again_but_not_played_again() -> None:
    assert imitate(Spelling, 3, 2) == [["aa", "bb"], ["cc", "aa"], ["bb", "cc"]]
    assert sorted(Spelling.resets) == ["aa", "bb", "cc"]


def test_a_task_may_come_twice_in_one_update() -> None:
    assert imitate(Spelling, 1, 5) == [["aa", "bb", "cc", "aa", "bb"]]
    assert sorted(Spelling.resets) == ["aa", "bb", "cc"]


def test_of_too_many_demonstrations_not_all_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrl.warmup.REMEMBERED", 2)
    assert imitate(Spelling, 2, 3) == [["aa", "bb", "cc"]] * 2
    assert len(Spelling.resets) == 6


def test_an_expert_sees_each_observation_of_its_own_episode_before_it_answers() -> None:
    Dictating.seen.clear()
    assert imitate(Dictating, 1, 3) == [["aa", "bb", "cc"]]
    assert Dictating.seen == [["type a", "type a"], ["type b", "type b"], ["type c", "type c"]]


def test_an_expert_that_is_at_a_loss_costs_its_own_episode_and_no_more() -> None:
    class Timid(Dictating):
        def demonstrate(self, task: Task) -> Expert:
            good = super().demonstrate(task)

            def expert(observation: Observation) -> str:
                if task.id == "bb":
                    raise LookupError("there is no b")
                return good(observation)

            return expert

    assert imitate(Timid, 1, 3) == [["aa", "cc"]]


@pytest.mark.parametrize(
    ("shown", "cause"),
    [
        (["a"], "ScriptEnded: the demonstration ended before"),
        (lambda seen: 7, "TypeError: the expert answered 7"),
    ],
)
def test_why_demonstrations_fail_is_told(shown: Sequence[str] | Expert, cause: str) -> None:
    class Short(Spelling):
        def demonstrate(self, task: Task) -> Sequence[str] | Expert | None:
            return shown

    with pytest.raises(UsageError, match=f"for example 'aa': agent.act at turn . raised {cause}"):
        imitate(Short, 1, 3)


def test_experts_who_mostly_fail_are_refused() -> None:
    class Sloppy(Spelling):
        def demonstrate(self, task: Task) -> Sequence[str] | None:
            return ["a", "a"]

    with pytest.raises(UsageError, match="most demonstrations do not solve their task"):
        imitate(Sloppy, 1, 3)


def test_an_env_without_an_expert_is_refused() -> None:
    class Mute(Spelling):
        def demonstrate(self, task: Task) -> Sequence[str] | None:
            return None

    with pytest.raises(UsageError, match="shows no demonstration of task 'aa'"):
        imitate(Mute, 1, 1)
