"""A run tells its runtime what it will need, and lets it place envs; episodes of a lost env are replayed."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrl import Action, Agent, Conversation, Env, Observation, Outcome, Task, user
from agentrl.assembly import env_pool, plan, resources
from agentrl.config import RunConfig, SimulatorConfig, resolve
from agentrl.errors import EnvLost
from agentrl.hooks import Hooks
from agentrl.hosting.housing import Housing
from agentrl.hosting.pool import EnvPool, InProcessPool
from agentrl.interfaces import Crew, Engine, Trainer
from agentrl.plugins import load, make
from agentrl.resolution import check_resumable
from agentrl.runtime import Peer, Plan, Program, Runtime
from agentrl.simulator import Simulator
from agentrl.testing.engines import ScriptedEngine
from agentrl.types import Group


class Elsewhere(Runtime):
    """Notes what it is asked for."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.housed: list[Housing] = []

    def launch(self, programs: Sequence[Program]) -> list[Peer]:
        raise NotImplementedError

    def meeting(self, peers: Sequence[Peer]) -> Any:
        raise NotImplementedError

    def pool(self, housing: Housing) -> EnvPool:
        self.housed.append(housing)
        return InProcessPool(lambda: make("env", housing.env, housing.options), housing.workers)


class Several(Trainer):
    crew = Crew(4)


class Two(Engine):
    crew = Crew(2, gpus=2)


Several.__abstractmethods__ = Two.__abstractmethods__ = frozenset()


def config(*sets: str, **flags: Any) -> RunConfig:
    return resolve({}, {"env": "deepsearch", "device": "cpu", **flags}, sets)


def test_a_run_tells_its_runtime_what_it_will_need(tmp_path: Path) -> None:
    wanted = config("simulator.workers=3")
    assert plan(wanted, Two(), Several(), tmp_path / "model", tmp_path) == Plan(
        trainer=Crew(4),
        engine=Crew(2, gpus=2),
        workers=3,
        device="cpu",
        folders={"run directory": tmp_path, "model": tmp_path / "model"},
    )
    assert plan(config(), ScriptedEngine(str), None, "organization/model", None) == Plan()


def test_env_workers_live_where_the_runtime_says_and_other_envs_here() -> None:
    runtime = Elsewhere()
    wanted = config("simulator.workers=3", "env.hops=[2]")
    env = make("env", "deepsearch", wanted.env.options)
    assert env_pool(wanted, env, runtime).size == 3
    assert runtime.housed == [Housing("deepsearch", wanted.env.options, 3)]
    assert isinstance(env_pool(config(), env, runtime), InProcessPool)
    assert len(runtime.housed) == 1


def test_engines_and_trainers_are_given_the_runtime_which_is_local_unless_one_is_chosen() -> None:
    runtime = Elsewhere()
    assert resources(config(), runtime).runtime is runtime
    assert config().runtime.name == "local"
    assert issubclass(load("runtime", "local"), Runtime)


def test_a_run_may_be_resumed_on_another_runtime() -> None:
    before = config("threads=1")
    check_resumable(
        before, before.model_copy(update={"runtime": before.runtime.model_copy(update={"name": "x"})})
    )


# Envs that are lost


class Lost(Env):
    """Loses its env at the second step, for so many times."""

    losses = 0

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task("only", split)]

    async def reset(self, task: Task, seed: int) -> Observation:
        self.steps = 0
        return Observation(f"seed {seed}")

    async def step(self, action: Action) -> Observation:
        self.steps += 1
        if self.steps == 2 and type(self).losses:
            type(self).losses -= 1
            raise EnvLost("its node is gone")
        return Observation(f"step {self.steps}", done=self.steps == 3)

    async def judge(self) -> Outcome:
        return Outcome(success=True)


class Talker(Agent):
    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        conversation.say(user(observation.text))
        return Action(await conversation.ask())


def play(losses: int) -> list[Group]:
    async def run() -> list[Group]:
        Lost.losses = losses
        pool = InProcessPool(Lost, size=1)
        engine = ScriptedEngine(lambda text: "tick")
        simulator = Simulator(
            pool, Talker, engine, SimulatorConfig(), Hooks(installed=False), lambda text: None
        )
        groups = await simulator.play(Lost().tasks("train"), 2, seed=7)
        await pool.close()
        return groups

    return asyncio.run(run())


def everything(groups: Sequence[Group]) -> list[Any]:
    played = [trajectory for group in groups for trajectory in group.trajectories]
    return [(each.seed, each.turns, each.segments, each.outcome, each.stop, each.error) for each in played]


@pytest.mark.parametrize("losses", [1, 3])
def test_an_episode_whose_env_is_lost_is_played_again_as_if_nothing_had_happened(losses: int) -> None:
    assert everything(play(losses)) == everything(play(0))


def test_an_episode_whose_env_is_lost_again_and_again_fails() -> None:
    (group,) = play(100)
    assert {trajectory.stop for trajectory in group.trajectories} == {"error"}
    assert group.trajectories[0].error == "its env was lost again and again: its node is gone"
    assert group.trajectories[0].turns == []
