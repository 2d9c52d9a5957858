"""DAPO: GRPO whose updates hold only groups that can teach, and whose unlikely tokens can grow.

Yu et al. 2025, DAPO: An Open-Source LLM Reinforcement Learning System at Scale, arXiv:2503.14476. Its parts:

1. Clip-higher: the ratio is clipped to [1 - .2, 1 + .28] (eq. 10), as in GRPO here.
2. Dynamic sampling: groups whose trajectories are all equally good are left out (eq. 11), and further tasks
   are played in their place (`refills`).
3. Losses are averaged over all tokens of the update (eq. 12), as in GRPO here. No KL penalty.
4. Overlong trajectories: a soft punishment (eq. 13), or no loss for what was cut off ("overlong filtering").

How it differs from the paper:
1. There, tasks are played until the batch is full; here at most `refills` more times, so that a step comes to
   an end even where hardly any task can teach.
2. Equally good means equal rewards before the punishment; the paper has a single reward, right or wrong.
3. Trajectories without loss still count for the mean of their group, and their tokens in the denominator.
4. Both ways to treat overlong trajectories are off until they are set: what is too long depends on the env.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from agentrl import Batch, Credit, Group, Trajectory, hookimpl
from agentrl_grpo import GRPO

__all__ = ["DAPO"]

# Rewards that differ by less do so by rounding alone.
_TOLERANCE = 1e-9


class DAPO(GRPO):
    """Decoupled clip and dynamic sampling policy optimisation."""

    suggests: ClassVar[Mapping[str, Any]] = {"refills": 3}

    class Config(GRPO.Config):
        """Options of DAPO, besides those of GRPO.

        Attributes:
            overlong_length: sampled tokens from which on a trajectory's reward is lowered by 1; None
                lowers none.
            overlong_buffer: sampled tokens before that over which the punishment grows from 0.
            filter_truncated: whether trajectories that ran out of turns or tokens have no loss.
        """

        overlong_length: int | None = Field(default=None, ge=1)
        overlong_buffer: int | None = Field(default=None, ge=1)
        filter_truncated: bool = False

        @model_validator(mode="after")
        def _buffer_is_within_length(self) -> Self:
            length, buffer = self.overlong_length, self.overlong_buffer
            if (length is None) != (buffer is None):
                raise ValueError("overlong_length and overlong_buffer go together: set both, or neither")
            if length is not None and buffer is not None and buffer > length:
                raise ValueError("overlong_buffer must not be longer than overlong_length")
            return self

    config: Config

    @hookimpl
    def keep_group(self, group: Group) -> bool:
        """Return whether some trajectories of a group did better than others."""
        earned = [each.reward - self.overlong_punishment(each.sampled) for each in group.trajectories]
        return max(earned) - min(earned) > _TOLERANCE

    @hookimpl
    def adjust_reward(self, trajectory: Trajectory) -> float:
        """Punish a trajectory that is too long."""
        return self.overlong_punishment(trajectory.sampled)

    def overlong_punishment(self, sampled: int) -> float:
        """Return what is added to the reward of a trajectory of so many sampled tokens, -1 to 0 (eq. 13)."""
        length, buffer = self.config.overlong_length, self.config.overlong_buffer
        if length is None or buffer is None:
            return 0.0
        return max(-1.0, min(0.0, (length - buffer - sampled) / buffer))

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Compare each trajectory with its group; if asked to, what was cut off is to learn nothing."""
        credits = super().credit(batch)
        if not self.config.filter_truncated:
            return credits
        return [
            [
                Credit([0.0] * trajectory.sampled) if trajectory.stop.startswith("max_") else credit
                for trajectory, credit in zip(group.trajectories, given, strict=True)
            ]
            for group, given in zip(batch.groups, credits, strict=True)
        ]
