"""CISPO: the ratio is bounded as a weight, so no token ever stops to learn.

MiniMax 2025, MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention, arXiv:2506.13585,
eq. 4 and 5. With ratio r = pi / pi_old, advantage A as in GRPO, and sg() for what is held constant,

    loss_t = -sg(clip(r_t, 1 - clip_low, 1 + clip_high)) A_t log pi_t

PPO's clip takes the gradient of a token away altogether once its ratio has left the bounds, which happens to
rare but decisive tokens first. Here the token is only weighed by no more than the bound.

Where an update makes one optimizer step, all weights are 1 and the gradient is that of GRPO. The value of the
loss says nothing about progress: only its gradient is meant.

How the defaults differ from the paper:
1. `clip_high` bounds weights at 5; which bound the paper tunes it to, we could not verify.
2. Rewards are whatever the run was given; the paper has length and format rewards of its own.

As in the paper there is no lower bound (`clip_low` 1) and no KL penalty, and losses are averaged over all
tokens.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from agentrl import Tokens
from agentrl_grpo import GRPO

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CISPO"]


class CISPO(GRPO):
    """Clipped importance sampling policy optimisation."""

    class Config(GRPO.Config):
        """Options of GRPO, with bounds for a weight.

        Attributes:
            clip_low: how far below 1 the weight of a token may fall; 1 is no bound.
            clip_high: how far above 1 it may rise.
        """

        clip_low: float = Field(default=1.0, gt=0, le=1)
        clip_high: float = Field(default=4.0, gt=0)
        # What is fixed is no option: setting it is refused. Weights are bounded whatever the advantage.
        dual_clip: ClassVar = None  # type: ignore[misc]

    config: Config
    # The weights are constants on purpose: finite differences mean nothing.
    checked_with: ClassVar[Mapping[str, Any]] = {"gradcheck": False}

    def policy_loss(self, tokens: Tokens) -> "Tensor":
        """Return the loss without penalty and correction, (N,); its weights are constants."""
        ratio_N = self.ratio(tokens).detach()
        weight_N = ratio_N.clamp(1 - self.config.clip_low, 1 + self.config.clip_high)
        tokens.log("ratio", ratio_N)
        tokens.log("clip_share", (weight_N != ratio_N).to(ratio_N.dtype))
        return -weight_N * tokens.advantages * tokens.logprobs
