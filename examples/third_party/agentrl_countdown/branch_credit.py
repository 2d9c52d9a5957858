"""Branch credit: an action is worth what it changed in the mean reward of those who had done the same so far.

The trajectories of a group begin alike and part step by step. With V(h) the mean reward of all that share the
history h, the step that leads from h to h' gets

    A = V(h') - V(h)

Summed over a trajectory this is its reward less the group's mean; so all credit falls on the steps where
trajectories part, and none on what all of them did, nor on what one did after it was alone.
"""

from collections import defaultdict
from itertools import pairwise
from statistics import fmean

from agentrl import Batch, Credit, Group, PolicyGradient, Trajectory
from agentrl.steps import spread, steps
from agentrl.types import Need

__all__ = ["BranchCredit"]

History = tuple[tuple[str, str], ...]


class BranchCredit(PolicyGradient):
    """Credit where trajectories part, with the clipped policy loss."""

    @property
    def needs(self) -> frozenset[Need]:
        """Return "groups", and what the loss needs."""
        return super().needs | {"groups"}

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Return the change of the mean reward that each step made, for all tokens of its turn."""
        return [self._of_group(group) for group in batch.groups]

    def _of_group(self, group: Group) -> list[Credit]:
        histories = [_histories(trajectory) for trajectory in group.trajectories]
        rewards: dict[History, list[float]] = defaultdict(list)
        for trajectory, passed in zip(group.trajectories, histories, strict=True):
            for history in passed:
                rewards[history].append(trajectory.reward)
        return [
            Credit(spread(trajectory, _changes([fmean(rewards[history]) for history in passed]), rest=0.0))
            for trajectory, passed in zip(group.trajectories, histories, strict=True)
        ]


def _histories(trajectory: Trajectory) -> list[History]:
    """Return what had been done before the first step, and after each."""
    done = tuple((step.state, step.action) for step in steps(trajectory))
    return [done[:count] for count in range(len(done) + 1)]


def _changes(values: list[float]) -> list[float]:
    return [after - before for before, after in pairwise(values)]
