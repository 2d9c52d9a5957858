"""Supervised learning on the tokens of demonstrations: the warm start before reinforcement learning.

    loss_t = -log pi(a_t | everything before)

Every token of a demonstration is to become more likely; nothing is compared with anything. Used by
`agentrl run --warmup N`, where the "sampled" tokens are those that an expert said.
"""

from typing import TYPE_CHECKING

from agentrl import Algorithm, Batch, Credit, Tokens
from agentrl.types import Need

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Imitation"]


class Imitation(Algorithm):
    """Maximum likelihood of the tokens that were said (behaviour cloning)."""

    @property
    def needs(self) -> frozenset[Need]:
        """Return "demonstrations": what a model has played itself is nothing to imitate."""
        return frozenset({"demonstrations"})

    def credit(self, batch: Batch) -> list[list[Credit]]:
        """Give every token the same credit, 1."""
        return [[Credit([1.0] * t.sampled) for t in group.trajectories] for group in batch.groups]

    def loss(self, tokens: Tokens) -> "Tensor":
        """Return the negative log-likelihood, weighed by the credit; nats, (N,)."""
        return -tokens.advantages * tokens.logprobs
