"""RLOO: each trajectory is compared with the mean of the *others* that were played for its task.

Ahmadian et al. 2024, Back to Basics: Revisiting REINFORCE Style Optimization for Learning from Human Feedback
in LLMs, arXiv:2402.14740, the RLOO estimator (after Kool et al. 2019). With rewards R_1..R_G of a group,
every token of trajectory i gets the advantage

    A_i = R_i - mean(R_j, j != i) = G / (G - 1) (R_i - mean(R))

The baseline does not depend on the trajectory that it is taken off, so the gradient is unbiased; and it is
not divided by a standard deviation, so tasks that are nearly always or hardly ever solved do not weigh more.

How the defaults differ from the paper:
1. The loss is the clipped one of GRPO. As long as an update makes one optimizer step all ratios are 1,
   nothing is clipped, and its gradient is the paper's.
2. Losses are averaged over all tokens of the update, where the paper sums over a sequence and averages over
   sequences: the same direction, scaled by the mean length.
3. No KL penalty, hence no reference. With `kl="reward"` it is the paper's (eq. 2).
"""

from statistics import fmean
from typing import ClassVar

from agentrl_grpo import GRPO

__all__ = ["RLOO", "leave_one_out"]


def leave_one_out(rewards: list[float]) -> list[float]:
    """Return how far each reward is above the mean of the others; 0 if there are none."""
    if min(rewards) == max(rewards):  # exactly 0, which the mean's rounding would miss
        return [0.0] * len(rewards)
    mean, scale = fmean(rewards), len(rewards) / (len(rewards) - 1)
    return [scale * (reward - mean) for reward in rewards]


class RLOO(GRPO):
    """REINFORCE with a leave-one-out baseline."""

    class Config(GRPO.Config):
        """Options of the loss; advantages have none."""

        # What is fixed is no option: setting it is refused.
        normalisation: ClassVar = "none"  # type: ignore[misc]
        epsilon: ClassVar = 0.0  # type: ignore[misc]

    config: Config

    def advantages(self, rewards: list[float]) -> list[float]:
        """Return the advantage of each trajectory of a group."""
        return leave_one_out(rewards)
