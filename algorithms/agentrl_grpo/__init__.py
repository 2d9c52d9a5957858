"""GRPO: each trajectory is compared with the others that were played for the same task; there is no critic.

Shao et al. 2024, DeepSeekMath, arXiv:2402.03300. With rewards R_1..R_G of a group, every token of trajectory
i gets the advantage (section 4.1.2, outcome supervision)

    A_i = (R_i - mean(R)) / (std(R) + epsilon)

and the loss of a token is the clipped one of PPO (eq. 3; Schulman et al. 2017, arXiv:1707.06347, eq. 7), with
ratio r = pi / pi_old, plus a penalty for drifting from the reference:

    loss_t = max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)) + kl_coefficient * kl_t

How the defaults differ from the paper:
1. `clip_high` .28 is wider than `clip_low` .2, so that unlikely tokens can grow (DAPO, Yu et al. 2025,
   arXiv:2503.14476, eq. 10).
2. Losses are averaged over all tokens of the update, not per trajectory first (DAPO, eq. 8).
3. No KL penalty, hence no reference (DAPO, section 2.3).
4. `epsilon` keeps the quotient finite; the paper has none.
`normalisation="none"` with `aggregation="constant"` is Dr.GRPO (Liu et al. 2025, arXiv:2503.20783).

Shapes: N sampled tokens of a micro-batch.
"""

from statistics import fmean, pstdev, stdev
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from agentrl import Aggregation, Algorithm, Batch, Credit, PluginConfig, Tokens
from agentrl.types import Need

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GRPO"]

# Ratios beyond e^20 carry no information, and their gradients are not finite.
LOG_RATIO_LIMIT = 20.0


class GRPO(Algorithm):
    """Group-relative policy optimisation."""

    class Config(PluginConfig):
        """Options of GRPO.

        Attributes:
            normalisation: the standard deviation that the advantage is divided by: of the sample (divided
                by G - 1), of the population (by G), or none.
            epsilon: added to it.
            clip_low: how far below 1 the ratio may fall before it stops to count.
            clip_high: how far above 1 it may rise.
            dual_clip: bound on the ratio where the advantage is negative, so that one token that became
                likely cannot dominate (Ye et al. 2020, arXiv:1912.09729); None means no bound.
            kl_coefficient: weight of the penalty; above 0 the trainer keeps a reference.
            kl_loss: form of the penalty, with x = log pi - log pi_ref of the sampled token. What counts is
                where its gradient leads, on average over the policy's own samples:
                "k2", x^2 / 2: to the gradient of KL(pi || pi_ref), the drift that one means.
                "k3", exp(-x) + x - 1: to that of KL(pi_ref || pi), the other direction. The paper's (eq. 4).
                "k1", x: nowhere; its gradient is 0 on average. For comparison only.
            aggregation: how the losses of tokens become one number (see `agentrl.aggregation`).
            length: the constant, in tokens, that aggregation "constant" divides by.
        """

        normalisation: Literal["sample", "population", "none"] = "sample"
        epsilon: float = Field(1e-6, ge=0)
        clip_low: float = Field(0.2, gt=0, le=1)
        clip_high: float = Field(0.28, gt=0)
        dual_clip: float | None = Field(None, gt=1)
        kl_coefficient: float = Field(0.0, ge=0)
        kl_loss: Literal["k1", "k2", "k3"] = "k2"
        aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"] = (
            "token-mean"
        )
        length: int | None = Field(None, ge=1)

        @model_validator(mode="after")
        def _length_belongs_to_constant(self) -> "GRPO.Config":
            if (self.aggregation == "constant") != (self.length is not None):
                raise ValueError("length goes with aggregation 'constant', which needs it, and with no other")
            return self

    config: Config

    @property
    def needs(self) -> frozenset[Need]:
        """Return "groups", and "reference" if there is a KL penalty."""
        return frozenset({"groups", "reference"} if self.config.kl_coefficient else {"groups"})

    @property
    def skips_zero_advantage(self) -> bool:
        """Return whether a token without advantage has neither loss nor gradient: without a penalty."""
        return self.config.kl_coefficient == 0

    @property
    def aggregation(self) -> Aggregation:
        """Return how per-token losses become one number."""
        return Aggregation(self.config.aggregation, self.config.length)

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Compare each trajectory with its group; all its tokens share the advantage."""
        return [
            [
                Credit([advantage] * trajectory.sampled)
                for trajectory, advantage in zip(
                    group.trajectories, self.advantages(group.rewards), strict=True
                )
            ]
            for group in batch.groups
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

    def loss(self, tokens: Tokens) -> "Tensor":
        """Return the clipped policy loss, plus the KL penalty if there is one, (N,)."""
        loss_N = self._policy_loss(tokens)
        if self.config.kl_coefficient:
            loss_N = loss_N + self.config.kl_coefficient * self._kl_loss(tokens)
        return loss_N

    def _policy_loss(self, tokens: Tokens) -> "Tensor":
        config, advantages_N = self.config, tokens.advantages
        log_ratio_N = (tokens.logprobs - tokens.old_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        ratio_N = log_ratio_N.exp()
        free_N = -advantages_N * ratio_N
        clipped_N = -advantages_N * ratio_N.clamp(1 - config.clip_low, 1 + config.clip_high)
        loss_N = free_N.maximum(clipped_N)
        tokens.log("ratio", ratio_N)
        tokens.log("clip_share", (clipped_N > free_N).to(ratio_N.dtype))
        if config.dual_clip is None:
            return loss_N
        bound_N = -advantages_N * config.dual_clip
        return loss_N.where(advantages_N >= 0, loss_N.minimum(bound_N))

    def _kl_loss(self, tokens: Tokens) -> "Tensor":
        reference_N = tokens.reference_logprobs
        assert reference_N is not None, "GRPO.needs asks for the reference"
        gap_N = (tokens.logprobs - reference_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
        k3_N = (-gap_N).exp() + gap_N - 1
        tokens.log("kl", k3_N)
        return {"k1": gap_N, "k2": gap_N.square() / 2, "k3": k3_N}[self.config.kl_loss]
