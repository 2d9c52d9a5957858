"""REINFORCE with the mean reward of the group as its baseline, in one file.

Williams 1992, Simple statistical gradient-following algorithms for connectionist reinforcement learning. The
trajectories of a group were played for the same task. With their rewards R_1..R_G, every token that was
sampled in trajectory i gets the advantage

    A_i = R_i - mean(R)

and the gradient of its loss, -A_i log pi(token), makes what went better than usual likelier.

Shapes: N sampled tokens of a micro-batch.
"""

from statistics import fmean
from typing import TYPE_CHECKING

from agentrl import Algorithm, Batch, Credit, Group, PluginConfig, Tokens
from agentrl.types import Need
from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MyAlgorithm"]


class MyAlgorithm(Algorithm):
    """REINFORCE with a group baseline."""

    class Config(PluginConfig):
        """Options: `--set algorithm.shrink=0.1` sets one, and a misspelt one is refused."""

        shrink: float = Field(
            default=0.0, ge=0, lt=1, description="how much of an advantage is lost where it is negative"
        )

    config: Config

    @property
    def needs(self) -> frozenset[Need]:
        """Return what must be there before a run can start: here, several trajectories of each task."""
        return frozenset({"groups"})

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Return what each sampled token is to learn; one trajectory's tokens share an advantage here."""
        return [self._of_group(group) for group in batch.groups]

    def _of_group(self, group: Group) -> list[Credit]:
        baseline = fmean(group.rewards)
        return [
            Credit([self._advantage(trajectory.reward - baseline)] * trajectory.sampled)
            for trajectory in group.trajectories
        ]

    def _advantage(self, difference: float) -> float:
        return difference if difference > 0 else (1 - self.config.shrink) * difference

    def loss(self, tokens: Tokens) -> "Tensor":
        """Return the loss of each token, (N,); the trainer averages it and follows its gradient."""
        tokens.log("surprise", -tokens.logprobs)  # a metric: trainer/surprise
        return -tokens.advantages * tokens.logprobs
