"""GRPO: each trajectory is compared with the others that were played for the same task; there is no critic.

Shao et al. 2024, DeepSeekMath, arXiv:2402.03300. With rewards R_1..R_G of a group, every token of trajectory
i gets the advantage (section 4.1.2, outcome supervision)

    A_i = (R_i - mean(R)) / (std(R) + epsilon)

and the clipped loss of PPO (eq. 3; `agentrl.policy_gradient`).

How the defaults differ from the paper:
1. `clip_high` .28 is wider than `clip_low` .2, so that unlikely tokens can grow (DAPO, Yu et al. 2025,
   arXiv:2503.14476, eq. 10).
2. Losses are averaged over all tokens of the update, not per trajectory first (DAPO, eq. 8).
3. No KL penalty, hence no reference (DAPO, section 2.3).
4. `epsilon` keeps the quotient finite; the paper has none.
5. With `kl="reward"` the penalty of all tokens of a trajectory is taken off its reward before rewards are
   compared (as in Ahmadian et al. 2024, arXiv:2402.14740, eq. 2).

Algorithms that compare a group in another way refine this one: override `advantages`.
"""

from statistics import fmean, pstdev, stdev
from typing import Literal, Self

from pydantic import Field, model_validator

from agentrl import Batch, Credit, PolicyGradient
from agentrl.types import Need

__all__ = ["GRPO"]

_EPSILON = 1e-6


class GRPO(PolicyGradient):
    """Group-relative policy optimisation."""

    class Config(PolicyGradient.Config):
        """Options of GRPO, besides those of the loss.

        Attributes:
            normalisation: the standard deviation that the advantage is divided by: of the sample (divided
                by G - 1), of the population (by G), or none.
            epsilon: added to it; goes with a normalisation only.
        """

        normalisation: Literal["sample", "population", "none"] = "sample"
        epsilon: float = Field(default=_EPSILON, ge=0)

        @model_validator(mode="after")
        def _epsilon_is_used(self) -> Self:
            is_option = "epsilon" in type(self).model_fields
            if is_option and self.normalisation == "none" and self.epsilon != _EPSILON:
                raise ValueError("epsilon goes with normalisation 'sample' or 'population' only")
            return self

    config: Config

    @property
    def needs(self) -> frozenset[Need]:
        """Return "groups", and what the loss needs."""
        return super().needs | {"groups"}

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Compare each trajectory with its group; all its tokens share the advantage."""
        return [
            [
                Credit([advantage] * trajectory.sampled)
                for trajectory, advantage in zip(
                    group.trajectories, self.advantages(self.rewards(batch, index)), strict=True
                )
            ]
            for index, group in enumerate(batch.groups)
        ]

    def advantages(self, rewards: list[float]) -> list[float]:
        """Return the advantage of each trajectory of a group."""
        if min(rewards) == max(rewards):  # exactly 0, which the mean's rounding would miss
            return [0.0] * len(rewards)
        mean, scale = fmean(rewards), self._scale(rewards)
        return [(reward - mean) / scale for reward in rewards]

    def _scale(self, rewards: list[float]) -> float:
        """Return what the differences to the mean are divided by."""
        match self.config.normalisation:
            case "sample":
                return stdev(rewards) + self.config.epsilon
            case "population":
                return pstdev(rewards) + self.config.epsilon
            case "none":
                return 1.0
