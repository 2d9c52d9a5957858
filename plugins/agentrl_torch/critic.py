"""The critic: what reward is still to come, estimated before each sampled token.

A value head on a transformer. Its backbone is a copy of the actor of its own, or the actor's; it runs over
the same token trie. The head begins at zero, so an untrained critic says 0 everywhere, and stays in float32
(or wider) whatever the matrix products are computed in.

Shapes: R slots before which a token was sampled, N sampled tokens, D model width.
"""

import math
from collections.abc import Sequence
from statistics import pvariance
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from agentrl.interfaces import PluginConfig
from agentrl.types import Batch, Credit
from agentrl_torch import forward
from agentrl_torch.micro_batch import MicroBatch

# Adam's steps on a whole transformer are rarely stable beyond this.
HIGHEST_RATE = 1e-3


class CriticConfig(PluginConfig):
    """Options of the critic.

    Attributes:
        backbone: "separate" copies the actor's weights at the start of the run, with LoRA only its adapter;
            "shared" puts the head on the actor itself, for half the memory: the value loss then moves the
            actor's weights, too.
        learning_rate: at the top of the schedule; None is ten times the actor's, at most 1e-3.
        max_grad_norm: longer gradients are scaled down to this norm.
        warmup_updates: for at most so many updates at the beginning, and at most half of the run, only the
            critic learns (with a shared backbone only its head): an actor that follows an untrained critic
            gets worse.
        warmup_until: the warm-up is over once the critic explains this share of the returns' variance.
        extra_epochs: further passes over each update's trajectories in which only the critic learns: a return
            can be learnt from again where the policy's gradient would be out of date.
    """

    backbone: Literal["separate", "shared"] = "separate"
    learning_rate: float | None = Field(default=None, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    warmup_updates: int = Field(default=20, ge=0)
    warmup_until: float = Field(default=0.2, le=1)
    extra_epochs: int = Field(default=0, ge=0)

    def rate(self, actor: float) -> float:
        """Return the learning rate, given the actor's."""
        return min(10 * actor, max(actor, HIGHEST_RATE)) if self.learning_rate is None else self.learning_rate


class Critic(nn.Module):
    """A value head, with the backbone that it has to itself, if any."""

    def __init__(self, actor: PreTrainedModel, backbone: PreTrainedModel | None) -> None:
        """Take the actor, and the copy of it that is to be the backbone; None is the actor's own."""
        super().__init__()
        self.backbone = None if backbone is None else _without_projection(backbone)
        width = actor.config.get_text_config().hidden_size
        wide = torch.promote_types(actor.dtype, torch.float32)
        self.head = ValueHead(width, 1, device=actor.device, dtype=wide)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, micro: MicroBatch, actor_hidden_RD: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Return the value before each sampled token, (N,).

        Args:
            micro: the tokens.
            actor_hidden_RD: the actor's last hidden states; a backbone of the critic's own needs none.
            dtype: of the backbone's matrix products.
        """
        backbone = self.backbone
        hidden_RD = actor_hidden_RD if backbone is None else forward.hidden_states(backbone, micro, dtype)
        assert hidden_RD is not None, "a shared backbone is the actor's"
        value_R: Tensor = self.head(hidden_RD).squeeze(-1)
        return value_R.index_select(0, forward.row_of_token(micro).to(value_R.device))


class ValueHead(nn.Linear):
    """Computes in float32 or wider, also where its weights are kept narrower."""

    def forward(self, hidden_RD: Tensor) -> Tensor:
        """Return the value of each row, (R, 1)."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        return nn.functional.linear(hidden_RD.to(wide), self.weight.to(wide), self.bias.to(wide))


def _without_projection(backbone: PreTrainedModel) -> PreTrainedModel:
    """Return the backbone without the projection to the vocabulary, which nothing asks for."""
    head = backbone.get_output_embeddings()
    if head is not None and head.weight is not backbone.get_input_embeddings().weight:
        backbone.set_output_embeddings(nn.Identity())
    return backbone


def explained_variance(batch: Batch, credits: Sequence[Sequence[Credit]]) -> float:
    """Return the share of the returns' variance that the values before the update explain; at most 1.

    1 - Var(return - value) / Var(return) over the tokens that have a return. NaN where returns do not vary.
    Returns that are bootstrapped (lambda below 1) are partly the critic's own values, which it explains well.
    """
    assert batch.values is not None
    pairs = [
        pair
        for members, values in zip(credits, batch.values, strict=True)
        for credit, row in zip(members, values, strict=True)
        for pair in zip(credit.returns or (), row, strict=True)
        if not math.isnan(pair[0])
    ]
    spread = pvariance([target for target, _ in pairs]) if pairs else 0.0
    return 1 - pvariance([target - value for target, value in pairs]) / spread if spread else math.nan
