"""The clipped policy loss that most algorithms share: what is left to them is credit.

Subclass `PolicyGradient`, write `credit`, and the loss of a token is that of PPO (Schulman et al. 2017,
arXiv:1707.06347, eq. 7), with ratio r = pi / pi_old and advantage A,

    loss_t = w max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)) + kl_coefficient * kl_t

where w corrects for an engine that samples from other probabilities than the trainer computes, and kl_t is a
penalty for drifting from the reference. All of it is optional. The tensors speak for themselves: torch need
not be imported to define an algorithm.

Shapes: N sampled tokens of a micro-batch, M its trajectories.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from agentrl.interfaces import Aggregation, Algorithm, PluginConfig, Tokens
from agentrl.types import Batch, Need

if TYPE_CHECKING:
    from torch import Tensor

# Ratios beyond e^20 carry no information, and their gradients are not finite.
LOG_RATIO_LIMIT = 20.0


class PolicyGradient(Algorithm):
    """An algorithm with the clipped policy loss."""

    class Config(PluginConfig):
        """Options of the loss.

        Attributes:
            clip_low: how far below 1 the ratio may fall before it stops to count.
            clip_high: how far above 1 it may rise. Wider than `clip_low`, so that unlikely tokens can grow
                (DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 10).
            dual_clip: bound on the ratio where the advantage is negative, so that one token that became
                likely cannot dominate (Ye et al. 2020, arXiv:1912.09729); None means no bound.
            kl: form of the penalty, with x = log pi - log pi_ref of the sampled token, nats. What counts is
                where its gradient leads, on average over the policy's own samples:
                "none": no penalty, no reference.
                "reward": x is taken off the reward, as a constant. Its policy gradient is that of
                KL(pi || pi_ref), the drift that one means; it is compared and discounted like any reward.
                "k2": x^2 / 2 in the loss: to the gradient of KL(pi || pi_ref), too; biased as a value.
                "k3": exp(-x) + x - 1 in the loss: to that of KL(pi_ref || pi), the other direction
                (GRPO, Shao et al. 2024, arXiv:2402.03300, eq. 4).
                "straight-through": the value of k3, which is unbiased, with the gradient of k2.
                "k1": x in the loss: nowhere; its gradient is 0 on average. For comparison only.
                The estimators are Schulman's (2020, http://joschu.net/blog/kl-approx.html).
            kl_coefficient: weight of the penalty.
            correction: truncated importance weight w = min(pi_old / mu, correction_cap), a constant, for
                tokens that the engine sampled with the probability mu and the trainer gives pi_old: of each
                "token", or of the whole "sequence", the product over its tokens (Yao et al. 2025, "Your
                efficient RL framework secretly brings you off-policy RL training"). The trainer
                recomputes pi_old for it; "none" trusts the engine, where pi_old is mu and w is 1.
            correction_cap: see there; None means 2.
            reject_above: trajectories whose pi_old / mu, as the geometric mean over their tokens, is above
                this or below its inverse teach the policy nothing; a penalty in the loss, and a critic's
                loss, stay. None rejects none.
            aggregation: how the losses of tokens become one number (see `agentrl.aggregation`).
            length: the constant, in tokens, that aggregation "constant" divides by.
        """

        clip_low: float = Field(default=0.2, gt=0, le=1)
        clip_high: float = Field(default=0.28, gt=0)
        dual_clip: float | None = Field(default=None, gt=1)
        kl: Literal["none", "reward", "k1", "k2", "k3", "straight-through"] = "none"
        kl_coefficient: float = Field(default=0.0, ge=0, allow_inf_nan=False)
        correction: Literal["none", "token", "sequence"] = "none"
        correction_cap: float | None = Field(default=None, ge=1)
        reject_above: float | None = Field(default=None, gt=1)
        aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant"] = (
            "token-mean"
        )
        length: int | None = Field(default=None, ge=1)

        @model_validator(mode="after")
        def _length_goes_with_constant(self) -> Self:
            if (self.aggregation == "constant") != (self.length is not None):
                raise ValueError("length goes with aggregation 'constant', which needs it, and with no other")
            return self

        @model_validator(mode="after")
        def _every_option_is_used(self) -> Self:
            if (self.kl == "none") != (self.kl_coefficient == 0):
                raise ValueError(
                    "kl and kl_coefficient go together: set kl (reward, k2, k3, ...) and a coefficient above "
                    "0, or neither"
                )
            if self.correction == "none" and self.correction_cap is not None:
                raise ValueError("correction_cap needs correction 'token' or 'sequence'")
            return self

    config: Config

    @property
    def needs(self) -> frozenset[Need]:
        """Return "reference" if there is a KL penalty; "logprobs" if it is in the reward, or to correct."""
        config, needs = self.config, set[Need]()
        if config.kl != "none":
            needs.add("reference")
        if config.kl == "reward" or config.correction != "none" or config.reject_above is not None:
            needs.add("logprobs")
        return frozenset(needs)

    @property
    def skips_zero_advantage(self) -> bool:
        """Return whether a token without advantage has neither loss nor gradient: without a penalty."""
        return self.config.kl in ("none", "reward")

    @property
    def aggregation(self) -> Aggregation:
        """Return how per-token losses become one number."""
        return Aggregation(self.config.aggregation, self.config.length)

    def kl_rewards(self, batch: Batch, group: int, member: int) -> Sequence[float]:
        """Return what the penalty adds to the reward of each sampled token of a trajectory: -c x, or 0."""
        trajectory = batch.groups[group].trajectories[member]
        if self.config.kl != "reward":
            return [0.0] * trajectory.sampled
        assert batch.reference_logprobs is not None, "`needs` asks for the reference"
        own, reference = batch.logprobs_of(group, member), batch.reference_logprobs[group][member]
        return [-self.config.kl_coefficient * (a - b) for a, b in zip(own, reference, strict=True)]

    def rewards(self, batch: Batch, group: int) -> list[float]:
        """Return the reward of each trajectory of a group, less its KL penalty if that is part of it."""
        rewards = batch.groups[group].rewards
        return [reward + sum(self.kl_rewards(batch, group, i)) for i, reward in enumerate(rewards)]

    def loss(self, tokens: Tokens) -> "Tensor":
        """Return the loss of each token, (N,)."""
        loss_N = self.policy_loss(tokens) * self.correction_weights(tokens)
        if self.config.kl not in ("none", "reward"):
            loss_N = loss_N + self.config.kl_coefficient * self._kl_loss(tokens)
        elif tokens.reference_logprobs is not None:
            tokens.log("kl", _k3(_gap(tokens.logprobs, tokens.reference_logprobs)))
        return loss_N

    def ratio(self, tokens: Tokens) -> "Tensor":
        """Return how much likelier each token has become by this update, (N,)."""
        return _gap(tokens.logprobs, tokens.old_logprobs).exp()

    def policy_loss(self, tokens: Tokens) -> "Tensor":
        """Return the clipped loss without penalty and correction, (N,)."""
        config, advantages_N = self.config, tokens.advantages
        ratio_N = self.ratio(tokens)
        free_N = -advantages_N * ratio_N
        clipped_N = -advantages_N * ratio_N.clamp(1 - config.clip_low, 1 + config.clip_high)
        loss_N = free_N.maximum(clipped_N)
        tokens.log("ratio", ratio_N)
        tokens.log("clip_share", (clipped_N > free_N).to(ratio_N.dtype))
        if config.dual_clip is None:
            return loss_N
        bound_N = -advantages_N * config.dual_clip
        return loss_N.where(advantages_N >= 0, loss_N.minimum(bound_N))

    def correction_weights(self, tokens: Tokens) -> "Tensor":
        """Return what the policy loss of each token is multiplied by, (N,), without gradient.

        Where the engine is trusted, pi_old is mu, so every weight is 1: it cannot be applied twice.
        """
        config = self.config
        gap_N = _gap(tokens.old_logprobs, tokens.rollout_logprobs).detach().nan_to_num(0.0)
        weight_N = gap_N.new_ones(gap_N.shape)
        if config.correction != "none":
            whole_N = trajectory_sums(tokens, gap_N) if config.correction == "sequence" else gap_N
            limited_N = whole_N.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
            weight_N = limited_N.exp().clamp(max=config.correction_cap or 2.0)
            tokens.log("correction_weight", weight_N)
        if config.reject_above is not None:
            mean_N = trajectory_means(tokens, gap_N).exp()
            kept_N = (mean_N <= config.reject_above) & (mean_N >= 1 / config.reject_above)
            tokens.log("rejected", (~kept_N).to(weight_N.dtype))
            weight_N = weight_N * kept_N
        return weight_N

    def _kl_loss(self, tokens: Tokens) -> "Tensor":
        assert tokens.reference_logprobs is not None, "`needs` asks for the reference"
        gap_N = _gap(tokens.logprobs, tokens.reference_logprobs)
        k2_N, k3_N = gap_N.square() / 2, _k3(gap_N)
        tokens.log("kl", k3_N)
        straight_N = k2_N + (k3_N - k2_N).detach()
        return {"k1": gap_N, "k2": k2_N, "k3": k3_N, "straight-through": straight_N}[self.config.kl]


def trajectory_sums(tokens: Tokens, values_N: "Tensor") -> "Tensor":
    """Return for each token the sum of `values_N` over its trajectory, (N,)."""
    sums_M = values_N.new_zeros(tokens.trajectories).index_add(0, tokens.trajectory, values_N)
    return sums_M.index_select(0, tokens.trajectory)


def trajectory_means(tokens: Tokens, values_N: "Tensor") -> "Tensor":
    """Return for each token the mean of `values_N` over its trajectory, (N,)."""
    return trajectory_sums(tokens, values_N) / trajectory_sums(tokens, values_N.new_ones(values_N.shape))


def _gap(logprobs_N: "Tensor", others_N: "Tensor") -> "Tensor":
    return (logprobs_N - others_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _k3(gap_N: "Tensor") -> "Tensor":
    return (-gap_N).exp() + gap_N - 1
