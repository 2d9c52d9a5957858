"""Warm start: imitate what `Env.demonstrate` shows, before reinforcement learning begins.

The demonstrations are played through the real env and the real agent, on an engine that says what the
expert says; so the model learns from exactly the tokens it will see when it plays by itself. An engine sees
tokens, an expert sees observations: they are taken from the agent, as the env shows them to it.
"""

import math
from collections.abc import Callable, Sequence

from agentrl.conversation import Conversation
from agentrl.errors import UsageError
from agentrl.expert import expert_of
from agentrl.interfaces import Agent, Algorithm, Curriculum, Engine, Env, Expert, Resources, Trainer, Weights
from agentrl.simulator import Simulator, session_name
from agentrl.types import Action, Completion, Group, Observation, Sampling, Task

# Demonstrations that are kept while they may be needed again.
REMEMBERED = 2000


class Demonstrator(Engine):
    """An engine that continues every conversation with what the expert says in that turn.

    Its agents have to be guided (see `guide`). The log-probabilities are NaN: no model has sampled these
    tokens.
    """

    def __init__(self, engine: Engine) -> None:
        """Take the engine whose tokenizer and context length are imitated."""
        super().__init__()
        self.tokenizer = engine.tokenizer
        self.context_length = engine.context_length
        self._experts: dict[str, Expert] = {}
        self._texts: dict[str, str] = {}

    def rehearse(self, env: Env, tasks: Sequence[Task]) -> None:
        """Call in the experts of `tasks`, as they will be played: one episode each, in order.

        Raises:
            UsageError: the env has no demonstration for a task.
        """
        for place, task in enumerate(tasks):
            expert = expert_of(env, task)
            if expert is None:
                raise UsageError(
                    f"the env shows no demonstration of task {task.id!r}, so it cannot be imitated; "
                    "leave --warmup out, or implement Env.demonstrate"
                )
            self._experts[session_name(task, place)] = expert

    def guide(self, agent: Agent) -> Agent:
        """Return `agent` with the expert at its side, which sees what it sees."""
        return Guided(agent, self)

    def show(self, session: str, observation: Observation) -> None:
        """Let the expert of an episode decide what is said in this turn.

        Raises:
            Exception: whatever the expert raises; it ends this one episode.
        """
        text: object = self._experts[session](observation)
        if not isinstance(text, str):
            raise TypeError(f"the expert answered {text!r}, which is no text")
        self._texts[session] = text

    async def start(self, model: object, resources: Resources) -> None:
        """Do nothing: there is no model."""

    async def load_weights(self, weights: Weights, version: int) -> None:
        """Do nothing: there are no weights."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        """Return what the expert says in this turn."""
        text = self._texts[session]
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        end = self.tokenizer.eos_token_id
        if end is not None and not text.endswith(tuple(sampling.stop)):
            ids = [*ids, end]
        ids = ids[: sampling.max_tokens]
        return Completion(ids, [math.nan] * len(ids), "stop")

    def release(self, session: str) -> None:
        """Let the expert go."""
        self._experts.pop(session, None)
        self._texts.pop(session, None)


class Guided(Agent):
    """An agent whose observations an expert sees first."""

    def __init__(self, agent: Agent, demonstrator: Demonstrator) -> None:
        """Take the agent, and who speaks for the model."""
        super().__init__()
        self._agent = agent
        self._demonstrator = demonstrator

    async def act(self, observation: Observation, conversation: Conversation) -> Action:
        """Show the observation to the expert, then to the agent."""
        self._demonstrator.show(conversation.session, observation)
        return await self._agent.act(observation, conversation)

    async def close(self) -> None:
        """Close the agent."""
        await self._agent.close()


async def warm_up(
    env: Env,
    simulator: Simulator,
    demonstrator: Demonstrator,
    curriculum: Curriculum,
    trainer: Trainer,
    imitation: Algorithm,
    updates: int,
    tasks_per_update: int,
    report: Callable[[int, dict[str, float]], None],
) -> None:
    """Imitate demonstrations for `updates` updates; `report` is told each update's metrics.

    A task that comes again is not played again, where there are not too many to remember.

    Raises:
        UsageError: the env has no demonstrations, or they do not solve their tasks.
    """
    played: dict[str, Group] = {}
    for update in range(1, updates + 1):
        tasks = curriculum.choose(tasks_per_update)
        new = list({task.id: task for task in tasks if task.id not in played}.values())
        demonstrator.rehearse(env, new)
        groups = await simulator.play(new, 1, seed=update)
        known = played | {group.task.id: group for group in groups}
        batch = trainer.prepare(_solved([known[task.id] for task in tasks]), imitation.needs)
        if len(known) <= REMEMBERED:
            played = known
        report(update, trainer.update(batch, imitation.credit(batch), imitation))


def _solved(groups: Sequence[Group]) -> list[Group]:
    """Return the groups whose demonstration solved its task."""
    solved = [group for group in groups if _success(group)]
    if 2 * len(solved) < len(groups):
        bad = next(group for group in groups if not _success(group))
        cause = bad.trajectories[0].error or "the env judges it a failure"
        raise UsageError(
            f"most demonstrations do not solve their task (for example {bad.task.id!r}: {cause}); "
            "check Env.demonstrate with `agentrl.testing`"
        )
    return solved


def _success(group: Group) -> bool:
    outcome = group.trajectories[0].outcome
    return outcome is not None and outcome.success
