"""The online simulator: batches of tasks in, groups of trajectories out.

Many episodes run side by side under asyncio; the engine batches whatever episodes are waiting for
tokens. Seeds are derived from the caller's seed and the episode's place, so the same call gives the same
episodes in the same order.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any

from agentrl.activity import Activities
from agentrl.chat import ChatFormat
from agentrl.config import SimulatorConfig
from agentrl.conversation import Conversation
from agentrl.episode import Episode, EpisodeFailed
from agentrl.errors import AgentRLError, EnvLost, UsageError
from agentrl.hooks import Hooks
from agentrl.hosting.pool import EnvPool
from agentrl.interfaces import Agent, Engine, Env
from agentrl.seeds import derive
from agentrl.stragglers import CutOff, Stragglers
from agentrl.together import all_of
from agentrl.types import Group, Observation, Sampling, Task, Trajectory
from agentrl.watchdog import Watchdog

# How often an episode is played again whose env was lost.
_REPLAYS = 5


def session_name(task: Task, place: int, call: str = "") -> str:
    """Return the name of the episode at `place` of a call of `Simulator.play`."""
    return f"{call}episode {place:05d} of task {task.id}"


class Simulator:
    """Plays tasks with an agent on an engine; `activities` knows for how long engine and envs worked."""

    def __init__(
        self,
        pool: EnvPool,
        make_agent: Callable[[], Agent],
        engine: Engine,
        config: SimulatorConfig,
        hooks: Hooks,
        warn: Callable[[str], None],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Take the parts; `warn` is told what is stuck, and `tools` are the env's, for agents to offer."""
        self._pool = pool
        self._make_agent = make_agent
        self._engine = engine
        self._chat = ChatFormat(engine.tokenizer)
        self._config = config
        self._hooks = hooks
        self._warn = warn
        self._tools = tools
        self.activities = Activities()
        # Of all calls together: who came first plays first.
        self._slots = asyncio.Semaphore(min(config.concurrency, pool.size))

    async def play(
        self,
        tasks: Sequence[Task],
        group_size: int | Sequence[int],
        seed: int,
        temperature: float | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        alike: bool = False,
        judge: Callable[[Trajectory], Awaitable[None]] | None = None,
        call: str = "",
        cut_off: float | None = None,
    ) -> list[Group]:
        """Play every task `group_size` times.

        Args:
            tasks: one group each, in this order.
            group_size: trajectories a task; or those of each task, in the order of the tasks.
            seed: all randomness of these episodes derives from it.
            temperature: in place of the configured one.
            progress: told how many episodes of how many are over.
            alike: whether the episodes of a group begin alike, with the same seed of the env, so that they
                differ by what the policy does; else each has a seed of its own.
            judge: is given each trajectory as soon as it was played, while others still play.
            cut_off: see `SimulatorConfig`; not for what is to be measured.
            call: what the names of these episodes begin with, where calls run side by side.

        Raises:
            AgentRLError: something is wrong with the run rather than with an episode.
        """
        sampling = self._sampling(temperature)
        sizes = [group_size] * len(tasks) if isinstance(group_size, int) else group_size
        counted = enumerate(zip(tasks, sizes, strict=True))
        episodes = [(task, group) for group, (task, size) in counted for _ in range(size)]
        finished = 0
        stragglers = Stragglers(len(episodes), cut_off)

        async def play_one(task: Task, group: int, place: int) -> Trajectory:
            nonlocal finished
            own = derive(seed, task.id, place)
            trajectory = Trajectory(task, derive(seed, task.id, "start", group) if alike else own)
            name = session_name(task, place, call)
            async with self._slots:
                try:
                    async with stragglers.watching(lambda: trajectory.failed):
                        await self._play_one(trajectory, own, name, sampling, dog)
                except CutOff as cause:
                    trajectory.stop, trajectory.error = "cut", str(cause)
            if judge:
                with dog.waiting(name, "the judgement"):
                    await judge(trajectory)
            finished += 1
            progress(finished, len(episodes))
            return trajectory

        with Watchdog(self._config.watchdog, self._warn) as dog:
            played = iter(await all_of(play_one(*one, place) for place, one in enumerate(episodes)))
        return [Group(task, list(islice(played, size))) for task, size in zip(tasks, sizes, strict=True)]

    def _sampling(self, temperature: float | None) -> Sampling:
        config = self._config
        wanted = config.temperature if temperature is None else temperature
        return Sampling(temperature=wanted, top_p=config.top_p, max_tokens=config.max_new_tokens)

    async def _play_one(
        self, trajectory: Trajectory, seed: int, session: str, sampling: Sampling, dog: Watchdog
    ) -> None:
        """Play `trajectory`, and again from its beginning for as long as its env is lost on the way.

        Of the two seeds, its own is the env's, and `seed` is of all else.
        """
        for replay in range(_REPLAYS + 1):
            try:
                await self._play_once(trajectory, seed, session, sampling, dog)
                return
            except EnvLost as loss:
                _clear(trajectory)
                if replay == _REPLAYS:
                    trajectory.stop, trajectory.error = "error", f"its env was lost again and again: {loss}"

    async def _play_once(
        self, trajectory: Trajectory, seed: int, session: str, sampling: Sampling, dog: Watchdog
    ) -> None:
        sampling = replace(sampling, seed=derive(seed, "sampling"))
        conversation = Conversation(
            self._engine,
            self._chat,
            sampling,
            session,
            max_tokens=self._config.max_tokens,
            at_work=self.activities.engine,
            tools=self._tools,
        )
        at_work = self.activities.envs
        episode = Episode(trajectory, conversation, self._config, dog, self._hooks, session, at_work)
        try:
            await self._with_env(episode, seed)
        finally:
            self._engine.release(session)

    async def _with_env(self, episode: Episode, seed: int) -> None:
        """Lease an env, begin (again, if resets fail) and play.

        Only resets are tried again: to replay an episode that failed later would prefer the
        trajectories that avoid the failure.
        """
        for attempt in range(self._config.reset_retries + 1):
            last = attempt == self._config.reset_retries
            leased = await self._lease(episode, last=last)
            if leased is None:
                continue
            broken = True
            try:
                env = self._hooks.wrap_env(leased, episode.trajectory.task, derive(seed, attempt))
                first = await self._begin(episode, env, last=last)
                if first is not None:
                    await episode.play(env, self._make_agent(), first)
                    broken = episode.trajectory.failed
            finally:
                await self._pool.release(leased, broken=broken)
            if first is not None or episode.trajectory.failed:
                return

    async def _lease(self, episode: Episode, *, last: bool) -> Env | None:
        """Return an env to play in; None if it cannot be made, which counts as a failed reset."""
        try:
            return await self._pool.acquire()
        except UsageError:
            raise
        except AgentRLError as error:
            if last:
                episode.fail(EpisodeFailed(f"no env could be made: {error}"))
            return None

    async def _begin(self, episode: Episode, env: Env, *, last: bool) -> Observation | None:
        """Return the first observation; None if the reset failed."""
        try:
            return await episode.begin(env)
        except EpisodeFailed as failure:
            if last:
                episode.fail(failure)
            return None


def _clear(trajectory: Trajectory) -> None:
    """Leave of a trajectory only what is to be played."""
    blank = Trajectory(trajectory.task, trajectory.seed)
    for field in fields(blank):
        setattr(trajectory, field.name, getattr(blank, field.name))
