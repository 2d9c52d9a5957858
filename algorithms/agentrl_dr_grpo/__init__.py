"""Dr.GRPO: GRPO without the two divisions that bias it.

Liu et al. 2025, Understanding R1-Zero-Like Training: A Critical Perspective, arXiv:2503.20783, section 3.2
(Dr. GRPO). With rewards R_1..R_G of a group, every token of trajectory i gets the advantage

    A_i = R_i - mean(R)

Not divided by the standard deviation, so that tasks of middling difficulty do not weigh less than the others;
and the losses of a trajectory are summed and divided by a constant, not by its own length, so that long
failures are not punished less, token by token, than short ones.

About that constant: the optimizer here is Adam, which does not see the scale of a gradient. What sees it is
`trainer.max_grad_norm`. The authors divide by the tokens a response may have at most, and so does the default
here; trajectories are commonly much shorter than that, hence gradients smaller and hardly ever bounded. Set
`length` to about the mean length of trajectories to have gradients of GRPO's size.

How the defaults differ from the paper:
1. `clip_high` .28 is wider than `clip_low` .2, as in GRPO here.
2. A trajectory has several turns; the constant is for all of its sampled tokens.
"""

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from agentrl import Aggregation, hookimpl
from agentrl_grpo import GRPO

if TYPE_CHECKING:
    from agentrl.config import RunConfig

__all__ = ["DrGRPO"]


class DrGRPO(GRPO):
    """GRPO done right: no standard deviation, and a constant for the length."""

    class Config(GRPO.Config):
        """Options of Dr.GRPO, besides those of the loss.

        Attributes:
            length: what the sum over a trajectory's tokens is divided by, in tokens. None is what the run
                allows a trajectory to sample: `simulator.max_tokens`, or `simulator.max_turns` times
                `simulator.max_new_tokens`.
        """

        # What is fixed is no option: setting it is refused.
        normalisation: ClassVar = "none"  # type: ignore[misc]
        epsilon: ClassVar = 0.0  # type: ignore[misc]
        aggregation: ClassVar = "constant"  # type: ignore[misc]
        length: int | None = Field(default=None, ge=1)

        @model_validator(mode="after")
        def _length_goes_with_constant(self) -> Self:
            return self  # None has a meaning

    config: Config
    _allowance: int | None = None

    @hookimpl
    def run_started(self, config: "RunConfig") -> None:
        """Take note of how many tokens a trajectory may sample."""
        limits = config.simulator
        self._allowance = limits.max_tokens or limits.max_turns * limits.max_new_tokens

    @property
    def aggregation(self) -> Aggregation:
        """Return how per-token losses become one number; outside of a run `length` must be set."""
        return Aggregation(self.config.aggregation, self.config.length or self._allowance)
