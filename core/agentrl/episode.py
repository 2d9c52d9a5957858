"""Plays one episode: env and agent in turn, until the end, a limit or a failure.

Whatever an env or agent does wrong ends this one trajectory with `stop="error"` and a readable cause. What is
wrong with the run itself (a prompt that can never fit, a dead engine) is raised and stops the run.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol, TypeVar

from agentrl.config import SimulatorConfig
from agentrl.conversation import Conversation
from agentrl.errors import AgentRLError, ContextFull, EnvLost, TokenBudgetSpent
from agentrl.hosting.codec import Nonsense, check_action, check_observation, check_outcome
from agentrl.interfaces import Agent, Env
from agentrl.types import Action, Observation, Task, Trajectory, Turn
from agentrl.watchdog import Watchdog

_log = logging.getLogger(__name__)
T = TypeVar("T")
# Returns a value as it is, if it is what it should be; takes the value and where it came from.
Check = Callable[[object, str], T]


class EpisodeFailed(Exception):
    """An env or agent failed; the message is the readable cause."""


class Listener(Protocol):
    """Who is told of every turn."""

    def agent_acted(self, task: Task, turn: Turn) -> None:
        """Take note of a turn."""
        ...


class Episode:
    """One episode on its way to becoming a trajectory."""

    def __init__(
        self,
        trajectory: Trajectory,
        conversation: Conversation,
        limits: SimulatorConfig,
        watchdog: Watchdog,
        listener: Listener,
        name: str,
        at_work: AbstractContextManager[None] | None = None,
    ) -> None:
        """Take the empty trajectory to fill.

        `name` says which episode it is, in messages; `at_work` is entered while the env is asked.
        """
        self.trajectory = trajectory
        self._conversation = conversation
        self._limits = limits
        self._watchdog = watchdog
        self._listener = listener
        self._name = name
        self._at_work = at_work or nullcontext()
        self._began = time.monotonic()

    async def begin(self, env: Env) -> Observation:
        """Reset the env.

        Raises:
            EpisodeFailed: it failed; no token was sampled yet, so it may be tried again.
            EnvLost: what the env played on is gone.
        """
        reset = env.reset(self.trajectory.task, self.trajectory.seed)
        first = await self._call("env.reset", reset, self._limits.reset_timeout, check_observation)
        if first.done:
            raise EpisodeFailed("env.reset returned an observation that is already done")
        return first

    async def play(self, env: Env, agent: Agent, observation: Observation) -> None:
        """Play from the first observation to the judgement; a failure is noted in the trajectory.

        Raises:
            EnvLost: what the env played on is gone.
        """
        try:
            await self._with_agent(env, agent, observation)
            judge = self._call("env.judge", env.judge(), self._limits.step_timeout, check_outcome)
            self.trajectory.outcome = await judge
        except EpisodeFailed as failure:
            self.fail(failure)
        self._finish()

    def fail(self, failure: EpisodeFailed) -> None:
        """End the trajectory with an error."""
        self.trajectory.stop = "error"
        self.trajectory.error = str(failure)
        self._finish()

    async def _with_agent(self, env: Env, agent: Agent, observation: Observation) -> None:
        """Play all turns and close the agent, however they ended; the first failure is what counts."""
        try:
            await self._turns(env, agent, observation)
        except BaseException:
            await self._close(agent, failed=True)
            raise
        await self._close(agent, failed=False)

    async def _close(self, agent: Agent, *, failed: bool) -> None:
        try:
            await self._call("agent.close", agent.close(), self._limits.step_timeout, _as_it_is)
        except EpisodeFailed as failure:
            if not failed:
                raise
            _log.warning("%s: %s", self._name, failure)

    async def _turns(self, env: Env, agent: Agent, observation: Observation) -> None:
        for turn in range(self._limits.max_turns):
            action = await self._act(agent, observation, turn)
            if action is None:
                self.trajectory.stop = "max_tokens"
                break
            self._listener.agent_acted(self.trajectory.task, self._add(observation, action))
            step = env.step(action)
            observation = await self._call("env.step", step, self._limits.step_timeout, check_observation)
            self._name_action(observation.action_key)
            if observation.done:
                break
        else:
            self.trajectory.stop = "max_turns"
        self.trajectory.final = observation

    async def _act(self, agent: Agent, observation: Observation, turn: int) -> Action | None:
        """Return the agent's action, or None if there was no room for one."""
        self._conversation.turn = turn
        act = agent.act(observation, self._conversation)
        try:
            return await self._call("agent.act", act, self._limits.act_timeout, check_action)
        except (ContextFull, TokenBudgetSpent):
            return None

    def _add(self, observation: Observation, action: Action) -> Turn:
        turn = Turn(observation, action)
        self.trajectory.turns.append(turn)
        return turn

    def _name_action(self, key: str | None) -> None:
        """Give the last action the key that the env has for it, if it has one."""
        if key is not None:
            turn = self.trajectory.turns[-1]
            self.trajectory.turns[-1] = replace(turn, action=replace(turn.action, key=key))

    async def _call(self, what: str, awaitable: Awaitable[T], limit: float, check: Check[T]) -> T:
        """Return what the env or agent answers, if it does so in time and with the right type."""
        where = f"{what} at turn {len(self.trajectory.turns)}"
        clock = asyncio.timeout(limit)
        try:
            at_work = self._at_work if what.startswith("env.") else nullcontext()
            with self._watchdog.waiting(self._name, where), at_work:
                async with clock:
                    answer = await awaitable
        except BaseException as error:
            if not _is_theirs(error):
                raise
            if clock.expired():
                raise EpisodeFailed(f"{where} took longer than {limit:g} s") from error
            if isinstance(error, EnvLost) or (what == "agent.act" and isinstance(error, AgentRLError)):
                raise
            raise EpisodeFailed(f"{where} raised {type(error).__name__}: {error}") from error
        try:
            return check(answer, where)
        except Nonsense as nonsense:
            raise EpisodeFailed(str(nonsense)) from nonsense

    def _finish(self) -> None:
        self.trajectory.segments = self._conversation.segments
        self.trajectory.seconds = time.monotonic() - self._began


def _as_it_is(value: T, where: str) -> T:
    return value


def _is_theirs(error: BaseException) -> bool:
    """Return whether env or agent is to blame: they may raise anything, but Ctrl-C and a stop are ours."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or not task.cancelling()
    return isinstance(error, Exception | SystemExit)
