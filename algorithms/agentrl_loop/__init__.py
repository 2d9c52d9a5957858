"""LOOP: leave-one-out advantages in PPO's clipped loss, and several epochs over what was played.

Chen et al. 2025, Reinforcement Learning for Long-Horizon Interactive LLM Agents, arXiv:2502.01600 (leave-one-
out proximal policy optimisation), in the form that served them best on AppWorld: ratio and clip are per
token. Advantages are those of RLOO, with neither standard deviation nor critic; those that are nearly 0 are
dropped; the ratio is clipped to [1 / (1 + .1), 1 + .1]; by default there is no KL penalty.

It suggests `trainer.epochs` 2, as in the paper, to every trainer that has such an option. With one epoch and
one minibatch ratios are 1, nothing is clipped, and LOOP is RLOO but for the advantages near 0.

How the defaults differ from the paper:
1. `trainer.minibatches` is left at the trainer's 1; the paper makes several optimizer steps in each epoch.
2. Losses are averaged over all tokens of a minibatch. How the paper weighs long trajectories, we could not
   verify: see `aggregation`.
3. The paper's group size 6, optimizer and LoRA are the run's to set (`group_size`, `trainer`).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from agentrl_rloo import RLOO

__all__ = ["LOOP"]


class LOOP(RLOO):
    """Leave-one-out proximal policy optimisation."""

    suggests: ClassVar[Mapping[str, Any]] = {"trainer.epochs": 2}

    class Config(RLOO.Config):
        """Options of LOOP, besides those of the loss.

        Attributes:
            negligible: advantages of a smaller absolute value are taken for 0.
        """

        clip_low: float = Field(default=1 - 1 / 1.1, gt=0, le=1)
        clip_high: float = Field(default=0.1, gt=0)
        negligible: float = Field(default=0.01, ge=0)

    config: Config

    def advantages(self, rewards: list[float]) -> list[float]:
        """Return the advantage of each trajectory of a group."""
        least = self.config.negligible
        return [0.0 if abs(each) < least else each for each in super().advantages(rewards)]
