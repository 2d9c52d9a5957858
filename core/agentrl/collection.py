"""Collects the groups of an update: choose, play, judge, keep; and again for what was not kept, if allowed.

A group that hooks or the algorithm do not keep (`keep_group`) teaches nothing. With `refills` left, the step
chooses as many further tasks as groups are missing: dynamic sampling (Yu et al. 2025, DAPO, arXiv:2503.14476,
section 3.2). They sample until the batch is full; we stop after so many rounds, so that a step comes to an
end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agentrl.config import RunConfig
from agentrl.errors import PluginError
from agentrl.evaluation import refuse_if_all_failed
from agentrl.hooks import Hooks
from agentrl.interfaces import Algorithm, Curriculum
from agentrl.judging import Judge, WeightedReward
from agentrl.seeds import derive
from agentrl.simulator import Simulator
from agentrl.types import Group, Task


@dataclass(slots=True)
class Collection:
    """The groups of an update.

    Attributes:
        played: all of them, in order.
        kept: whether each of them is kept for the update.
    """

    played: list[Group] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)

    def usable(self) -> list[Group]:
        """Return the groups to learn from: those that were kept, without what failed."""
        return [without_failed(group) for group, kept in zip(self.played, self.kept, strict=True) if kept]


@dataclass(frozen=True, slots=True)
class Collector:
    """Knows whom to ask for tasks, trajectories, rewards and what to keep."""

    curriculum: Curriculum
    simulator: Simulator
    rewards: Sequence[WeightedReward]
    hooks: Hooks
    algorithm: Algorithm
    config: RunConfig
    progress: Callable[[int, int], None] = lambda done, total: None

    async def collect(self, step: int) -> Collection:
        """Return the groups of update `step`; the curriculum has learnt from all of them.

        Raises:
            AgentRLError: every episode failed, or the curriculum gives sizes that do not fit.
        """
        collection = Collection()
        for number in range(self.config.refills + 1):
            missing = self.config.tasks_per_step - sum(collection.kept)
            if not missing:
                break
            groups = await self._play(missing, step, number)
            collection.played += groups
            refuse_if_all_failed(collection.played)
            self.curriculum.learn(groups)
            collection.kept += map(self._keeps, groups)
        return collection

    async def _play(self, count: int, step: int, number: int) -> list[Group]:
        tasks = self.curriculum.choose(count)
        sizes = self._sizes(tasks)
        seed, call = round_seed(self.config.seed, step, number), f"update {step:06d}, "
        return await self.simulator.play(
            tasks,
            sizes,
            seed=seed,
            progress=self.progress,
            alike=True,
            judge=Judge(self.rewards, self.hooks),
            call=call,
            cut_off=self.config.simulator.cut_off,
        )

    def _sizes(self, tasks: list[Task]) -> list[int]:
        """Return how many trajectories each task gets.

        Raises:
            PluginError: the curriculum asks for too many, or for fewer than the algorithm can compare.
        """
        size = self.config.group_size
        sizes = self.curriculum.sizes(tasks, size)
        least = 2 if "groups" in self.algorithm.needs else 1
        if len(sizes) != len(tasks) or min(sizes) < least or sum(sizes) > len(tasks) * size:
            raise PluginError(
                f"the curriculum {self.config.curriculum.name!r} gave the group sizes {sizes} for "
                f"{len(tasks)} tasks; each must be at least {least} and their sum at most {len(tasks) * size}"
            )
        return sizes

    def _keeps(self, group: Group) -> bool:
        usable = without_failed(group)
        return bool(usable.trajectories) and self.hooks.keep_group(usable)


def round_seed(seed: int, step: int, number: int) -> int:
    """Return the seed of a round of update `step`; round 0 is the first."""
    return derive(seed, "train", step, number) if number else derive(seed, "train", step)


def without_failed(group: Group) -> Group:
    """Return the group with the trajectories that can teach."""
    return Group(group.task, [t for t in group.trajectories if not t.failed])
