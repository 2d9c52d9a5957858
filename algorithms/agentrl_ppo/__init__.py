"""PPO: a critic says what was to be expected, and each token is credited with what it changed.

Schulman et al. 2017, arXiv:1707.06347, with generalised advantage estimation (GAE, Schulman et al. 2016,
arXiv:1506.02438, eq. 16). Over the sampled tokens t = 1..T of a trajectory, with values V_t before each token
and V_{T+1} = 0,

    delta_t = r_t + gamma V_{t+1} - V_t
    A_t     = delta_t + gamma lambda A_{t+1}

The outcome's reward stands at the last sampled token; with `kl="reward"` each token pays for its drift.
Tokens that were given, observations above all, are skipped: the last token of a turn is followed by the first
of the next. The policy loss is the clipped one of `agentrl.policy_gradient`; the critic's, clipped likewise:

    1/2 max((V - R)^2, (clip(V, V_old - value_clip, V_old + value_clip) - R)^2)    with R_t = A_t + V_old_t

`gae` chooses what a step is:
- "token": as above.
- "turn": one value a turn, at its first token, and one advantage, which all its tokens share; only there does
  the critic learn, though its loss is averaged over all tokens, and so the smaller the longer turns are.
- "bilevel": first over turns, from last token to last token, with `gamma_turn`; then inside each turn, where
  the last token begins with its turn's advantage (VAGEN, Wang et al. 2025, arXiv:2510.16907).

How it differs from the paper:
1. No entropy bonus; `clip_high` is wider than `clip_low` (DAPO, Yu et al. 2025, arXiv:2503.14476).
2. gamma = lambda = 1, since the reward comes once, at the end (as in Search-R1, arXiv:2503.09516).
3. Policy and critic may have a lambda each, and that of the policy may follow the length
   (VAPO, Yue et al. 2025, arXiv:2504.05118).
4. Advantages are whitened over the update's tokens.
5. The critic is another model with an optimizer of its own, and learns alone at first (`trainer.critic`).
Epochs and mini-batches are the trainer's. A trajectory that was cut off ends there, like any other.

Shapes: N sampled tokens of a micro-batch, T of a trajectory.
"""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from agentrl import Batch, Credit, PolicyGradient, Tokens, Trajectory
from agentrl.types import Need

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PPO"]

# lambda = 1 - 1 / (ALPHA l) for l tokens (VAPO, section 4.2).
ALPHA = 0.05
# Added to the standard deviation, so that what rounding leaves of a penalty of 0 is not blown up.
EPSILON = 1e-6


class PPO(PolicyGradient):
    """Proximal policy optimisation with a critic."""

    class Config(PolicyGradient.Config):
        """Options of PPO, besides those of the loss.

        Attributes:
            gae: what a step is.
            gamma: discount of what comes a step later; inside a turn for "bilevel".
            gamma_turn: discount of what comes a turn later, for "bilevel"; None is `gamma`.
            lambda_policy: 1 trusts what was earned, 0 what the critic expects of the next step; "length":
                1 - 1 / (.05 T), but not below 0.
            lambda_critic: the same for what the critic learns.
            whiten: whether advantages get mean 0 and standard deviation 1 over the update.
            value_clip: how far the critic may move from what it said before the update; None means anywhere.
            value_coefficient: weight of its loss. It matters where the backbone is the actor's, too; the
                optimizer of a critic of its own hardly sees the scale of a gradient.
        """

        gae: Literal["token", "turn", "bilevel"] = "token"
        gamma: float = Field(default=1.0, ge=0, le=1)
        gamma_turn: float | None = Field(default=None, ge=0, le=1)
        lambda_policy: float | Literal["length"] = 1.0
        lambda_critic: float = Field(default=1.0, ge=0, le=1)
        whiten: bool = True
        value_clip: float | None = Field(default=0.2, gt=0)
        value_coefficient: float = Field(default=1.0, gt=0, allow_inf_nan=False)

        @model_validator(mode="after")
        def _consistent(self) -> Self:
            if self.gamma_turn is not None and self.gae != "bilevel":
                raise ValueError("gamma_turn goes with gae 'bilevel' only")
            if self.lambda_policy != "length" and not 0 <= self.lambda_policy <= 1:
                raise ValueError("lambda_policy must be 'length', or a number from 0 to 1")
            return self

    config: Config

    @property
    def needs(self) -> frozenset[Need]:
        """Return "values", and what the loss needs."""
        return super().needs | {"values"}

    @property
    def skips_zero_advantage(self) -> bool:
        """Return False: the critic learns from every token."""
        return False

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Compare what each token led to with what the critic expected."""
        credits = [
            [self._credit_one(batch, g, m) for m in range(len(group.trajectories))]
            for g, group in enumerate(batch.groups)
        ]
        numbers = [number for members in credits for credit in members for number in credit.advantages]
        if not numbers:
            return credits
        mean, deviation = fmean(numbers), pstdev(numbers)
        batch.log("advantage_mean", mean)
        batch.log("advantage_deviation", deviation)
        return [[self._whitened(credit, mean, deviation) for credit in row] for row in credits]

    def _credit_one(self, batch: Batch, group: int, member: int) -> Credit:
        assert batch.values is not None, "PPO.needs asks for values"
        trajectory = batch.groups[group].trajectories[member]
        if not trajectory.sampled:
            return Credit([], [])
        rewards, values = list(self.kl_rewards(batch, group, member)), batch.values[group][member]
        rewards[-1] += trajectory.reward
        policy = self._lambda_policy(len(rewards))
        advantages = self._advantages(trajectory, rewards, values, policy)
        learnt, critic = advantages, self.config.lambda_critic
        if critic != policy:
            learnt = self._advantages(trajectory, rewards, values, critic)
        returns = [advantage + value for advantage, value in zip(learnt, values, strict=True)]
        if self.config.gae == "turn":
            firsts = {first for first, _ in turn_bounds(trajectory)}
            returns = [target if at in firsts else math.nan for at, target in enumerate(returns)]
        return Credit(advantages, returns)

    def _lambda_policy(self, length: int) -> float:
        wanted = self.config.lambda_policy
        return max(0.0, 1 - 1 / (ALPHA * length)) if wanted == "length" else wanted

    def _advantages(
        self, trajectory: Trajectory, rewards: Sequence[float], values: Sequence[float], lambda_: float
    ) -> list[float]:
        """Return the advantage of each sampled token, (T,)."""
        config, turns = self.config, turn_bounds(trajectory)
        match config.gae:
            case "token":
                return token_advantages(rewards, values, config.gamma, lambda_)
            case "turn":
                return turn_advantages(rewards, values, turns, config.gamma, lambda_)
            case "bilevel":
                above = config.gamma if config.gamma_turn is None else config.gamma_turn
                return bilevel_advantages(rewards, values, turns, config.gamma, lambda_, above)

    def _whitened(self, credit: Credit, mean: float, deviation: float) -> Credit:
        if not self.config.whiten:
            return credit
        scale = deviation + EPSILON
        return Credit([(number - mean) / scale for number in credit.advantages], credit.returns)

    def loss(self, tokens: Tokens) -> "Tensor":
        """Return the loss of policy and critic, (N,)."""
        value_loss_N = self.value_loss(tokens)
        tokens.log("critic/loss", value_loss_N)
        return super().loss(tokens) + self.config.value_coefficient * value_loss_N

    def value_loss(self, tokens: Tokens) -> "Tensor":
        """Return the critic's loss, (N,); 0 where it has nothing to learn."""
        values_N, before_N, returns_N = tokens.values, tokens.old_values, tokens.returns
        assert values_N is not None, "PPO.needs asks for values"
        assert before_N is not None, "PPO.needs asks for values"
        assert returns_N is not None, "PPO.credit gives returns"
        target_N = returns_N.where(~returns_N.isnan(), values_N.detach())
        loss_N = (values_N - target_N).square()
        if (clip := self.config.value_clip) is not None:
            near_N = values_N.clamp(before_N - clip, before_N + clip)
            clipped_N = (near_N - target_N).square()
            tokens.log("critic/clip_share", (clipped_N > loss_N).to(loss_N.dtype))
            loss_N = loss_N.maximum(clipped_N.where(~returns_N.isnan(), loss_N))
        return loss_N / 2


def token_advantages(
    rewards: Sequence[float], values: Sequence[float], gamma: float, lambda_: float
) -> list[float]:
    """Return the generalised advantage of each step, (T,), from rewards and values before it, (T,)."""
    advantages, following, advantage = [0.0] * len(rewards), 0.0, 0.0
    for step in range(len(rewards) - 1, -1, -1):
        delta = rewards[step] + gamma * following - values[step]
        advantage = delta + gamma * lambda_ * advantage
        advantages[step], following = advantage, values[step]
    return advantages


def turn_bounds(trajectory: Trajectory) -> list[tuple[int, int]]:
    """Return where the sampled tokens of each turn begin and end, among those of the trajectory."""
    turns = [span.turn for span in trajectory.spans for _ in span.logprobs]
    starts = [0]
    for _, tokens in groupby(turns):
        starts.append(starts[-1] + len(list(tokens)))
    return list(pairwise(starts))


def turn_advantages(
    rewards: Sequence[float],
    values: Sequence[float],
    turns: Sequence[tuple[int, int]],
    gamma: float,
    lambda_: float,
) -> list[float]:
    """Return the advantage of each token's turn, (T,); a turn's value is that before its first token."""
    earned = [sum(rewards[first:end]) for first, end in turns]
    expected = [values[first] for first, _ in turns]
    found = token_advantages(earned, expected, gamma, lambda_)
    return [
        advantage for advantage, (first, end) in zip(found, turns, strict=True) for _ in range(first, end)
    ]


def bilevel_advantages(
    rewards: Sequence[float],
    values: Sequence[float],
    turns: Sequence[tuple[int, int]],
    gamma: float,
    lambda_: float,
    gamma_turn: float,
) -> list[float]:
    """Return the advantage of each token, (T,): over the turns' last tokens, then back through each turn."""
    lasts = [end - 1 for _, end in turns]
    # What a turn earns before its last token counts inside the turn.
    above = token_advantages([rewards[x] for x in lasts], [values[x] for x in lasts], gamma_turn, lambda_)
    advantages = [0.0] * len(rewards)
    for (first, end), advantage in zip(turns, above, strict=True):
        advantages[end - 1] = advantage
        for token in range(end - 2, first - 1, -1):
            delta = rewards[token] + gamma * values[token + 1] - values[token]
            advantages[token] = delta + gamma * lambda_ * advantages[token + 1]
    return advantages
