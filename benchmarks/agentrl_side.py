"""agentrl's side of the race: the parts that a run has, in the order in which `agentrl.loop` calls them."""

import asyncio
import cProfile
import pstats
import threading
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from work import Measurement, Stopwatch, Work, peak_mb

from agentrl.config import SimulatorConfig
from agentrl.hooks import Hooks
from agentrl.hosting.pool import InProcessPool
from agentrl.interfaces import Env, Resources, Reward
from agentrl.judging import Judge, WeightedReward
from agentrl.simulator import Simulator
from agentrl.types import Action, Group, Observation, Outcome, Task, Trajectory
from agentrl_chat import Chat
from agentrl_grpo import GRPO
from agentrl_torch import TorchEngine, TorchTrainer


class Recital(Env):
    """Says what the work has it say, whatever the agent does."""

    def __init__(self, work: Work) -> None:
        """Take the shapes."""
        super().__init__()
        self._work = work

    def tasks(self, split: str) -> Sequence[Task]:
        """Return none: the race makes its own."""
        return []

    async def reset(self, task: Task, seed: int) -> Observation:
        """Show the group's prompt."""
        self._seed, self._turn = seed, 0
        return Observation(self._work.prompt_text(task.data["seed"]))

    async def step(self, action: Action) -> Observation:
        """Show the next observation."""
        self._turn += 1
        done = self._turn == self._work.turns
        return Observation("" if done else self._work.observation_text(self._seed, self._turn), done=done)

    async def judge(self) -> Outcome:
        """Return an outcome that no one looks at."""
        return Outcome(success=False)


class Alternating(Reward):
    """0 and 1 in turn, so that every trajectory has an advantage."""

    def __init__(self) -> None:
        """Begin with 0."""
        super().__init__()
        self._scores = cycle([0.0, 1.0])

    async def score(self, trajectory: Trajectory) -> float:
        """Return the next."""
        return next(self._scores)


class AgentRL:
    """The parts of a run. Call `start` first and `close` last."""

    def __init__(self, work: Work, model: Path) -> None:
        """Take the shapes and the model's folder."""
        self._work = work
        self._model = model
        self._steps = 0
        self._engine = TorchEngine()
        self._trainer = TorchTrainer()
        self._algorithm = GRPO()
        self._hooks = Hooks(installed=False)
        self._rewards = [WeightedReward("alternating", Alternating(), 1.0)]

    async def start(self) -> None:
        """Load the model twice, for engine and trainer."""
        work, resources = self._work, Resources(threads=self._work.threads)
        await self._engine.start(self._model, resources)
        self._trainer.start(self._model, self._algorithm.needs, 1000, resources)
        limits = SimulatorConfig(max_turns=work.turns, max_new_tokens=work.new_tokens)
        pool = InProcessPool(lambda: Recital(work), limits.concurrency)
        self._simulator = Simulator(pool, Chat, self._engine, limits, self._hooks, print)

    async def step(self, update: bool) -> Measurement:
        """Do a step, or its rollout only, and return what it took."""
        watch = Stopwatch()
        groups = await self._play()
        rollout, seconds, loss = watch.lap(), None, None
        if update:
            await self._engine.sleep()
            loss = self._learn(groups)
            await self._engine.wake()
            seconds = watch.lap()
        trained = sum(trajectory.sampled for group in groups for trajectory in group.trajectories)
        return Measurement(rollout=rollout, update=seconds, trained=trained, loss=loss, peak_mb=peak_mb())

    async def close(self) -> None:
        """Release everything."""
        await self._engine.close()
        self._trainer.close()

    async def _play(self) -> list[Group]:
        await self._engine.load_weights(self._trainer.weights(), self._steps)
        first = self._steps * self._work.groups
        self._steps += 1
        seeds = range(first, first + self._work.groups)
        tasks = [Task(str(seed), data={"seed": seed}) for seed in seeds]
        judge = Judge(self._rewards, self._hooks)
        groups = await self._simulator.play(tasks, self._work.group_size, seed=self._steps, judge=judge)
        for trajectory in (each for group in groups for each in group.trajectories):
            length = sum(len(segment.token_ids) for segment in trajectory.segments)
            if trajectory.failed or length != self._work.length:
                raise SystemExit(f"a trajectory has {length} tokens: {trajectory.error}")
        return groups

    def _learn(self, groups: list[Group]) -> float:
        batch = self._trainer.prepare(groups, self._algorithm.needs)
        credits = self._algorithm.credit(batch)
        return self._trainer.update(batch, credits, self._algorithm)["trainer/loss"]


def profile(work: Work, model: Path, update: bool) -> None:
    """Do a step under the profiler, and print what took longest, in the main thread and the engine's."""
    profiles = [cProfile.Profile(time.thread_time)]

    def join(*event: object) -> None:
        # The first event in a new thread; from then on its own profiler takes them.
        profiles.append(cProfile.Profile(time.thread_time))
        profiles[-1].enable()

    threading.setprofile(join)
    asyncio.run(_profile(work, model, update, profiles))
    threading.setprofile(None)
    # Threads that did nothing in the step, such as those that watch, have nothing to report.
    report = pstats.Stats(*(each for each in profiles if each.getstats()))
    report.sort_stats("tottime").print_stats(25)
    report.sort_stats("cumtime").print_stats("agentrl", 40)


async def _profile(work: Work, model: Path, update: bool, profiles: list[cProfile.Profile]) -> None:
    side = AgentRL(work, model)
    await side.start()
    await side.step(update)
    for each in profiles:
        each.clear()
    profiles[0].enable()
    await side.step(update)
    profiles[0].disable()
    await side.close()


def serve(work: Work, model: Path, update: bool, connection: Any) -> None:
    """Do a step whenever the other end of `connection` sends True, and send what it took; False ends."""
    asyncio.run(_serve(work, model, update, connection))


async def _serve(work: Work, model: Path, update: bool, connection: Any) -> None:
    side = AgentRL(work, model)
    await side.start()
    connection.send("ready")
    while connection.recv():
        connection.send(await side.step(update))
    await side.close()
