"""Warm start: imitate what `Env.demonstrate` shows, before reinforcement learning begins.

The demonstrations are played through the real env and the real agent, on an engine that says what the
expert says; so the model learns from exactly the tokens it will see when it plays by itself.
"""

import math
from collections.abc import Callable, Iterator, Sequence

from agentrl.errors import AgentRLError, UsageError
from agentrl.interfaces import Algorithm, Curriculum, Engine, Env, Resources, Trainer, Weights
from agentrl.simulator import Simulator, session_name
from agentrl.types import Completion, Group, Sampling, Task

# Demonstrations that are kept while they may be needed again.
REMEMBERED = 2000


class Demonstrator(Engine):
    """An engine that continues every conversation with the expert's next text.

    The log-probabilities are NaN: no model has sampled these tokens.
    """

    def __init__(self, engine: Engine) -> None:
        """Take the engine whose tokenizer and context length are imitated."""
        super().__init__()
        self.tokenizer = engine.tokenizer
        self.context_length = engine.context_length
        self._scripts: dict[str, Iterator[str]] = {}

    def rehearse(self, env: Env, tasks: Sequence[Task]) -> None:
        """Load the demonstrations of `tasks`, as they will be played: one episode each, in order.

        Raises:
            UsageError: the env has no demonstration for a task.
        """
        for place, task in enumerate(tasks):
            script = env.demonstrate(task)
            if script is None:
                raise UsageError(
                    f"the env shows no demonstration of task {task.id!r}, so it cannot be imitated; "
                    "leave --warmup out, or implement Env.demonstrate"
                )
            self._scripts[session_name(task, place)] = iter(script)

    async def start(self, model: object, resources: Resources) -> None:
        """Do nothing: there is no model."""

    async def load_weights(self, weights: Weights, version: int) -> None:
        """Do nothing: there are no weights."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, session: str) -> Completion:
        """Return the expert's next text."""
        text = next(self._scripts[session], None)
        if text is None:
            raise AgentRLError(f"{session}: the demonstration ended before the episode did")
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        end = self.tokenizer.eos_token_id
        if end is not None and not text.endswith(tuple(sampling.stop)):
            ids = [*ids, end]
        ids = ids[: sampling.max_tokens]
        return Completion(ids, [math.nan] * len(ids), "stop")

    def release(self, session: str) -> None:
        """Forget the script."""
        self._scripts.pop(session, None)


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
