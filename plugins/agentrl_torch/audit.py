"""Compares what the engine said about the tokens it sampled with what the trainer computes for them.

Both run the same weights over the same token ids, so the log-probabilities must agree up to rounding. Where
they do not, the model would be trained on something else than what it played: other ids, another context,
or weights that never arrived. Nothing else shows it.
"""

import math

import torch
from torch import Tensor

from agentrl.errors import AgentRLError
from agentrl_torch.micro_batch import MicroBatch

# Largest plausible difference of one token's log-probability, in nats, between two correct implementations.
# In bfloat16 one rounding step of a logit around 16 is already 0.06, and unlikely tokens amplify it.
THRESHOLDS = {torch.float64: 1e-2, torch.float32: 1e-2, torch.bfloat16: 2.0}


class Audit:
    """The differences of one update; tokens that no model sampled, or older weights did, are left out."""

    def __init__(self, threshold: float) -> None:
        """Take the largest difference that is allowed, in nats."""
        self.threshold = threshold
        self.largest = 0.0
        self.total = 0.0
        self.count = 0

    def compare(self, logprobs_N: Tensor, micro: MicroBatch) -> None:
        """Take note of a micro-batch.

        Raises:
            AgentRLError: a difference is above the threshold.
        """
        gap_N = (logprobs_N.detach().double().cpu() - micro.rollout_logprobs_N).abs()
        audited_N = micro.audited_N
        if not audited_N.any():
            return
        gap_N = torch.where(audited_N, gap_N.nan_to_num(math.inf), 0.0)
        worst = int(gap_N.argmax())
        self.largest = max(self.largest, float(gap_N[worst]))
        self.total += float(gap_N.sum())
        self.count += int(audited_N.sum())
        if self.largest > self.threshold:
            raise AgentRLError(self._sentence(worst, logprobs_N[worst].item(), micro))

    def absorb(self, other: "Audit") -> None:
        """Take note of what another rank has compared."""
        self.largest = max(self.largest, other.largest)
        self.total += other.total
        self.count += other.count

    def metrics(self) -> dict[str, float]:
        """Return the largest and the mean difference, in nats; nothing if nothing was compared."""
        if not self.count:
            return {}
        return {
            "audit/max_logprob_difference": self.largest,
            "audit/mean_logprob_difference": self.total / self.count,
        }

    def _sentence(self, worst: int, trainer: float, micro: MicroBatch) -> str:
        row = micro.rows[int(micro.trajectory_N[worst])]
        return (
            f"engine and trainer disagree about a token by {self.largest:.3g} nats (task {row.task!r}, "
            f"turn {int(micro.turn_N[worst])}: token {int(micro.target_U[micro.pair_N[worst]])}, engine "
            f"{float(micro.rollout_logprobs_N[worst]):.4f}, trainer {trainer:.4f}; "
            f"{self.threshold:g} is allowed), so the weights were left as they are; check that the engine "
            "has the trainer's latest weights and reports log-probabilities at the temperature it samples "
            "with, or raise trainer.audit_threshold if the two compute in different precision"
        )
