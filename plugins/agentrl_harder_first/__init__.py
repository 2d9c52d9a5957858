"""The curriculum that prefers tasks whose groups teach something, and among them the harder ones.

Where all trajectories of a task succeed, or all fail, there is nothing to compare (see `coverage`). So what
is known of each task's success rate, as a Beta distribution whose evidence fades (`beliefs`), says how likely
its next group is to teach; tasks are drawn without replacement with weights

    expected score ^ sharpness * expected share of failures

in the way of Efraimidis and Spirakis 2006, doi:10.1016/j.ipl.2005.11.003: the highest log(u) / weight, u
uniform. The second factor prefers, of two tasks with equal coverage, the one that fails more often. A share
of the choices, `floor`, goes through all tasks whatever is known of them, so that none starves. `sizes` can
give harder tasks larger groups (`adapt_group_size`).

Everything random derives from the seed and the number of tasks chosen before.
"""

from collections.abc import Mapping, Sequence
from math import log
from random import Random
from typing import Any, Literal

from pydantic import Field, model_validator

from agentrl import Curriculum, Group, PluginConfig, Task, UsageError
from agentrl.seeds import derive
from agentrl_harder_first.beliefs import Beliefs, count
from agentrl_harder_first.coverage import (
    Belief,
    expected_coverage,
    expected_variance,
    failure_rate,
    share_out,
)
from agentrl_harder_first.pool import Pool

__all__ = ["HarderFirst"]


class HarderFirst(Curriculum):
    """Prefer tasks that are neither always nor never solved, the harder ones first."""

    class Config(PluginConfig):
        """Options of the curriculum `harder_first`."""

        score: Literal["coverage", "variance"] = Field(
            default="coverage",
            description="what is good of a task: the chance that a group has both successes and failures, or "
            "the variance p (1 - p) of its success",
        )
        sharpness: float = Field(
            default=4.0, ge=0, description="exponent of the score: how strongly a better one is preferred"
        )
        by: Literal["task", "difficulty", "scenario", "labels"] = Field(
            default="task",
            description="what success rates are kept of; for envs whose tasks hardly ever recur: "
            "difficulty, scenario or labels",
        )
        floor: float = Field(
            default=0.1, ge=0, le=1, description="share of the choices that goes through all tasks in turn"
        )
        pool: int = Field(
            default=256, ge=1, description="how many tasks stand for choice at a time, if there are more"
        )
        half_life: float = Field(
            default=50.0, gt=0, description="updates (rounds, with refills) after which evidence counts half"
        )
        prior_successes: float = Field(default=1.0, gt=0, description="as if seen of every task before")
        prior_failures: float = Field(default=1.0, gt=0, description="as if seen of every task before")
        adapt_group_size: bool = Field(
            default=False, description="whether harder tasks get larger groups, at the same number in all"
        )
        min_group_size: int = Field(default=2, ge=1, description="of adapted groups")
        max_group_size: int | None = Field(
            default=None, ge=1, description="of adapted groups; null: four times the usual size"
        )

        @model_validator(mode="after")
        def _sizes_in_order(self) -> "HarderFirst.Config":
            if self.max_group_size is not None and self.max_group_size < self.min_group_size:
                raise ValueError("max_group_size must not be smaller than min_group_size")
            return self

    config: Config

    def start(self, tasks: Sequence[Task], seed: int) -> None:
        """Take the training tasks.

        Raises:
            UsageError: there are none, or they do not have what success rates are to be kept of.
        """
        if not len(tasks):
            raise UsageError("the training split has no tasks; choose another env or add tasks to it")
        config = self.config
        self._tasks = tasks
        self._seed = seed
        self._pool = Pool(tasks, config.pool, seed)
        self._beliefs = Beliefs((config.prior_successes, config.prior_failures), config.half_life)
        self._chosen = 0
        self._group_size = 2
        if config.by != "task" and all(
            getattr(t, config.by) in (None, {}) for t in self._pool.members.values()
        ):
            raise UsageError(
                f"the env's tasks have no {config.by}, so curriculum.by={config.by} tells none from another; "
                "leave it at task"
            )

    def choose(self, n: int) -> list[Task]:
        """Return `n` tasks: first those whose turn it is, then the most promising ones."""
        floor = self.config.floor
        due = int(floor * (self._chosen + n)) - int(floor * self._chosen)
        indices = [self._pool.newcomer() for _ in range(due)]
        indices += self._draw(n - due, indices)
        self._chosen += n
        if self.config.by != "task":
            # If only what was chosen were replaced, soon only what nobody wants would stand for choice.
            self._pool.renew()
        return [self._tasks[index] for index in indices]

    def sizes(self, tasks: Sequence[Task], group_size: int) -> list[int]:
        """Return how many trajectories each task gets: the same, or more where they are likelier to teach."""
        self._group_size = group_size
        if not self.config.adapt_group_size:
            return super().sizes(tasks, group_size)
        least = min(self.config.min_group_size, group_size)
        most = max(self.config.max_group_size or 4 * group_size, least)
        beliefs = [self._beliefs.of(self._key(task)) for task in tasks]
        return share_out(beliefs, len(tasks) * group_size, least, most)

    def learn(self, groups: Sequence[Group]) -> None:
        """Take note of successes and failures."""
        self._beliefs.learn((self._key(group.task), *count(group)) for group in groups)

    def state(self) -> dict[str, Any]:
        """Return what was chosen and seen."""
        return {
            "chosen": self._chosen,
            "group_size": self._group_size,
            "pool": self._pool.state(),
            "beliefs": self._beliefs.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after what was chosen and seen."""
        self._chosen = state["chosen"]
        self._group_size = state["group_size"]
        self._pool.restore(state["pool"])
        self._beliefs.restore(state["beliefs"])

    def _draw(self, n: int, taken: Sequence[int]) -> list[int]:
        """Return the indices of `n` tasks drawn by weight; those in `taken`, and repetitions, come last."""
        random = Random(derive(self._seed, "choose", self._chosen))
        members = self._pool.members
        weights = {key: self._weight(self._beliefs.of(key)) for key in set(map(self._key, members.values()))}
        ranks = {
            index: (index not in taken, log(1 - random.random()) / weights[self._key(task)])
            for index, task in members.items()
        }
        order = sorted(ranks, key=ranks.__getitem__, reverse=True)
        return [order[place % len(order)] for place in range(n)]

    def _weight(self, belief: Belief) -> float:
        """Return how much a task is wanted, above 0."""
        if self.config.score == "variance":
            score = expected_variance(belief)
        else:
            # A single trajectory covers nothing; it is chosen as if it had company.
            score = expected_coverage(belief, max(2, self._group_size))
        weight: float = score**self.config.sharpness * failure_rate(belief)
        return max(weight, 1e-300)

    def _key(self, task: Task) -> str:
        if self.config.by == "labels":
            return " ".join(f"{name}={value}" for name, value in sorted(task.labels.items()))
        return task.id if self.config.by == "task" else str(getattr(task, self.config.by))
