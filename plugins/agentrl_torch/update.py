"""The parts of an update: what the algorithm sees of a micro-batch, and the gradients of a minibatch.

Shapes: N sampled tokens of a micro-batch, M its trajectories.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from agentrl.aggregation import token_weights
from agentrl.errors import AgentRLError
from agentrl.interfaces import Algorithm, Tokens
from agentrl.types import Batch, Credit, Group
from agentrl_torch.audit import Audit
from agentrl_torch.forward import sampled_logprobs
from agentrl_torch.metrics import Tally
from agentrl_torch.micro_batch import MicroBatch
from agentrl_torch.optimization import check_finite

Credits = Sequence[Sequence[Credit]]
Facts = list[list[Sequence[float]]]


@dataclass(slots=True)
class TrieBatch(Batch):
    """A batch with its micro-batches, by minibatch; `audit` is set if it was audited before the update."""

    minibatches: list[list[MicroBatch]] = field(default_factory=list)
    audit: Audit | None = None

    @property
    def micros(self) -> list[MicroBatch]:
        """Return the micro-batches of all minibatches."""
        return [micro for micros in self.minibatches for micro in micros]


@dataclass(frozen=True, slots=True)
class Step:
    """What the gradients of one optimizer step depend on.

    Attributes:
        actor: the model being trained.
        dtype: of its matrix products.
        algorithm: has the loss.
        credits: of each trajectory of each group.
        trust_rollout: whether the engine's log-probabilities are taken for those before the update.
        update: number of the update, from 1, for messages.
    """

    actor: PreTrainedModel
    dtype: torch.dtype
    algorithm: Algorithm
    credits: Credits
    trust_rollout: bool
    update: int

    def accumulate(self, micros: Sequence[MicroBatch], tally: Tally, audit: Audit | None) -> float:
        """Add up the gradients of a minibatch and return its loss."""
        lengths = [length for micro in micros for length in micro.lengths]
        weights = iter(token_weights(lengths, self.algorithm.aggregation))
        total = 0.0
        for micro in micros:
            tokens = self._forward(micro, audit)
            losses_N = self._losses(tokens, micro)
            weights_M = losses_N.new_tensor([next(weights) for _ in micro.rows])
            loss = (losses_N * weights_M[tokens.trajectory]).sum()
            loss.backward()
            total += loss.item()
            tally.add(tokens)
        return total

    def _forward(self, micro: MicroBatch, audit: Audit | None) -> Tokens:
        logprobs_N, entropy_N = sampled_logprobs(self.actor, micro, self.dtype)
        if audit:
            audit.compare(logprobs_N, micro)
        return _tokens(micro, logprobs_N, entropy_N, self.credits, self.trust_rollout)

    def _losses(self, tokens: Tokens, micro: MicroBatch) -> Tensor:
        losses_N = self.algorithm.loss(tokens)
        if losses_N.shape != tokens.logprobs.shape:
            raise AgentRLError(
                f"{type(self.algorithm).__name__}.loss returned the shape {tuple(losses_N.shape)}; it "
                f"must return the loss of each token, {tuple(tokens.logprobs.shape)}"
            )
        check_finite(losses_N, self.update, [row.task for row in micro.rows])
        return losses_N


def _tokens(
    micro: MicroBatch, logprobs_N: Tensor, entropy_N: Tensor, credits: Credits, trust_rollout: bool
) -> Tokens:
    """Put together what the algorithm sees."""
    like: dict[str, Any] = {"dtype": logprobs_N.dtype, "device": logprobs_N.device}
    given = [credits[row.group][row.member] for row in micro.rows]
    returns = [credit.returns for credit in given if credit.returns is not None]
    reference = micro.reference_logprobs_N
    return Tokens(
        logprobs=logprobs_N,
        old_logprobs=_old(micro, logprobs_N.detach(), trust_rollout),
        rollout_logprobs=micro.rollout_logprobs_N.to(**like),
        advantages=_column([credit.advantages for credit in given], like),
        trajectory=micro.trajectory_N.to(logprobs_N.device),
        turn=micro.turn_N.to(logprobs_N.device),
        trajectories=len(micro.rows),
        entropy=entropy_N,
        reference_logprobs=None if reference is None else reference.to(**like),
        returns=_column(returns, like) if returns else None,
    )


def _old(micro: MicroBatch, own_N: Tensor, trust_rollout: bool) -> Tensor:
    """Return the log-probabilities before the update.

    Without a pass of their own they are the actor's current ones: exact as long as an update is one step,
    and tokens that no model sampled have no others.
    """
    before_N = own_N if micro.old_logprobs_N is None else micro.old_logprobs_N.to(own_N)
    if not trust_rollout:
        return before_N
    rollout_N = micro.rollout_logprobs_N.to(own_N)
    return torch.where(rollout_N.isnan(), before_N, rollout_N)


def _column(lists: Sequence[Sequence[float]], like: dict[str, Any]) -> Tensor:
    return torch.cat([torch.as_tensor(numbers, **like) for numbers in lists])


@torch.no_grad()
def compute_facts(
    batch: TrieBatch,
    model: PreTrainedModel,
    dtype: torch.dtype,
    keep: Callable[[MicroBatch, Tensor], None],
) -> Facts:
    """Return the log-probabilities of all sampled tokens under `model`; `keep` gets each micro-batch's."""
    facts: Facts = [[[] for _ in group.trajectories] for group in batch.groups]
    for micro in batch.micros:
        logprobs_N, _ = sampled_logprobs(model, micro, dtype)
        keep(micro, logprobs_N)
        for row, numbers in zip(micro.rows, logprobs_N.cpu().split(micro.lengths), strict=True):
            facts[row.group][row.member] = numbers.tolist()
    return facts


def check_credits(groups: Sequence[Group], credits: Credits, algorithm: Algorithm) -> None:
    """Raise AgentRLError unless each sampled token of each trajectory has its credit."""
    name = type(algorithm).__name__
    if [len(group.trajectories) for group in groups] != [len(members) for members in credits]:
        raise AgentRLError(f"{name}.credit must return one Credit for each trajectory of each group")
    for group, members in zip(groups, credits, strict=True):
        for trajectory, credit in zip(group.trajectories, members, strict=True):
            found = {len(x) for x in (credit.advantages, credit.returns) if x is not None}
            if found != {trajectory.sampled}:
                raise AgentRLError(
                    f"{name}.credit gave {max(found)} numbers to a trajectory of task {group.task.id!r} "
                    f"that sampled {trajectory.sampled} tokens"
                )
