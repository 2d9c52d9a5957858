"""GSPO: importance ratio and clip are those of the whole trajectory, as the reward is.

Zheng et al. 2025, Group Sequence Policy Optimization, arXiv:2507.18071. With log-ratios x_t = log pi(y_t) -
log pi_old(y_t) of the n sampled tokens of a trajectory (eq. 7),

    s = exp(mean(x_1..x_n))

stands for the ratio of each of them, in the clipped loss of eq. 5; advantages are those of GRPO (eq. 6). A
trajectory is clipped as a whole or not at all. Ratios that are means over many tokens lie close to 1, hence
bounds that are so much narrower.

Where an update makes one optimizer step, s is 1, nothing is clipped, and the gradient is that of GRPO with
aggregation "seq-mean-token-mean". GSPO makes a difference from `trainer.minibatches` or `trainer.epochs` 2
on (the paper makes four minibatches). Its bounds are narrower than what engine and trainer may differ by in
bfloat16, so it suggests that the trainer's own log-probabilities are those before the update.

How the defaults differ from the paper:
1. A trajectory has several turns; the mean is over all its sampled tokens.
2. The paper's second form, GSPO-token, is not here: with one advantage for all tokens of a trajectory its
   values and gradients are the same.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from agentrl import Tokens
from agentrl.policy_gradient import LOG_RATIO_LIMIT, trajectory_means
from agentrl_grpo import GRPO

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GSPO"]


class GSPO(GRPO):
    """Group sequence policy optimisation."""

    suggests: ClassVar[Mapping[str, Any]] = {"trainer.old_logprobs": "recompute"}

    class Config(GRPO.Config):
        """Options of GRPO, with bounds for the ratio of a trajectory.

        Attributes:
            aggregation: how the losses of tokens become one number (see `agentrl.aggregation`). The
                default is the paper's mean over trajectories; others weigh long trajectories more.
        """

        clip_low: float = Field(default=3e-4, gt=0, le=1)
        clip_high: float = Field(default=4e-4, gt=0)
        aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"] = (
            "seq-mean-token-mean"
        )

    config: Config

    def ratio(self, tokens: Tokens) -> "Tensor":
        """Return for each token how much likelier its trajectory has become, per token of it, (N,)."""
        mean_N = trajectory_means(tokens, tokens.logprobs - tokens.old_logprobs)
        return mean_N.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
