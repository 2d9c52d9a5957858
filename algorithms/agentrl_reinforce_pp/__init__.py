"""REINFORCE++: the return of each token, normalised over the whole batch; no critic, and no need of groups.

Hu et al. 2025, REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global Normalization,
arXiv:2501.03262 (the token's advantage and its normalisation over the batch; "w/ Baseline" for the second
form). A trajectory's reward r_t is its outcome at the last sampled token and, with `kl="reward"`, what the
penalty takes off at each. With returns G_t = r_t + gamma G_(t+1), and mean and std over all tokens of the
batch,

    A_t = (G_t - mean(G)) / (std(G) + epsilon)

so each trajectory counts by its number of tokens, and std is that of a sample (divided by n - 1). With
`baseline="group"` the outcome is taken relative to the mean of the task's group first.

How the defaults differ from the paper:
1. `clip_high` .28 is wider than `clip_low` .2, as in GRPO here.
2. No KL penalty, hence no reference. The paper's is `kl="reward"`; with a baseline, `kl="k2"`.
3. `epsilon` keeps the quotient finite.
4. `gamma`, 1 in the paper, discounts by sampled token.
"""

from collections.abc import Sequence
from math import fsum, sqrt
from statistics import fmean
from typing import Literal

from pydantic import Field

from agentrl import Batch, Credit, Group, PolicyGradient
from agentrl.types import Need

__all__ = ["ReinforcePP", "discounted_returns", "whitened"]


class ReinforcePP(PolicyGradient):
    """REINFORCE with advantages that are normalised over the batch."""

    class Config(PolicyGradient.Config):
        """Options of REINFORCE++, besides those of the loss.

        Attributes:
            baseline: what is taken off an outcome first: nothing, or the mean of its group.
            gamma: discount of a reward for each sampled token before it.
            epsilon: added to the standard deviation.
        """

        baseline: Literal["none", "group"] = "none"
        gamma: float = Field(default=1.0, ge=0, le=1)
        epsilon: float = Field(default=1e-6, ge=0)

    config: Config

    @property
    def needs(self) -> frozenset[Need]:
        """Return what the loss needs, and "groups" if they are the baseline."""
        return super().needs | ({"groups"} if self.config.baseline == "group" else set())

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Return each token's return, normalised over all tokens of the batch."""
        places = [(g, m) for g, group in enumerate(batch.groups) for m in range(len(group.trajectories))]
        returns = [discounted_returns(self._rewards(batch, *place), self.config.gamma) for place in places]
        credits = iter([Credit(each) for each in whitened(returns, self.config.epsilon)])
        return [[next(credits) for _ in group.trajectories] for group in batch.groups]

    def _rewards(self, batch: Batch, group: int, member: int) -> list[float]:
        """Return the reward at each sampled token of a trajectory."""
        rewards = list(self.kl_rewards(batch, group, member))
        if rewards:
            rewards[-1] += self._outcome(batch.groups[group], member)
        return rewards

    def _outcome(self, group: Group, member: int) -> float:
        rewards = group.rewards
        if self.config.baseline == "none":
            return rewards[member]
        if min(rewards) == max(rewards):  # exactly 0, which the mean's rounding would miss
            return 0.0
        return rewards[member] - fmean(rewards)


def discounted_returns(rewards: Sequence[float], gamma: float) -> list[float]:
    """Return for each step its reward and all later ones, discounted by `gamma` a step."""
    returns, following = [], 0.0
    for reward in reversed(rewards):
        following = reward + gamma * following
        returns.append(following)
    return returns[::-1]


def whitened(rows: Sequence[Sequence[float]], epsilon: float) -> list[list[float]]:
    """Return `rows` with mean 0 and standard deviation 1 over all their numbers; 0 if these are equal."""
    numbers = [number for row in rows for number in row]
    if not numbers or min(numbers) == max(numbers):
        return [[0.0] * len(row) for row in rows]
    mean = fmean(numbers)
    scale = sqrt(fsum((number - mean) ** 2 for number in numbers) / (len(numbers) - 1)) + epsilon
    return [[(number - mean) / scale for number in row] for row in rows]
