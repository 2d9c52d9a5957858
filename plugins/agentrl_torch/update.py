"""The parts of an update: what the algorithm sees of a micro-batch, and the gradients of a minibatch.

With a critic the algorithm's loss has its values in it, so that one backward pass serves both models. Where
there are several ranks, each computes its share of the trajectories with weights that are counted over all of
them, and gradients are summed over ranks.

Shapes: N sampled tokens of a micro-batch, M its trajectories.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from agentrl.aggregation import token_weights
from agentrl.errors import AgentRLError
from agentrl.interfaces import Algorithm, Tokens
from agentrl.types import Batch, Credit, Group
from agentrl_torch.audit import Audit
from agentrl_torch.metrics import Tally
from agentrl_torch.micro_batch import MicroBatch, Row
from agentrl_torch.optimization import check_finite
from agentrl_torch.sharing import micro_batches, spare
from agentrl_torch.world import ALONE, World

# Numbers about sampled tokens, by group and trajectory.
Facts = list[list[Sequence[float]]]
Credits = Sequence[Sequence[Credit]]


@dataclass(slots=True)
class TrieBatch(Batch):
    """A batch with its trajectories as arrays, by minibatch.

    `audit` is there if the batch was audited before the update.
    """

    minibatches: list[list[Row]] = field(default_factory=list)
    audit: Audit | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What the gradients of one optimizer step depend on.

    Attributes:
        actor: the model being trained, as a `forward.Policy`.
        dtype: of its matrix products.
        budget: unique tokens that are computed at once.
        algorithm: has the loss.
        batch: has the facts about the tokens.
        credits: of each trajectory of each group.
        trust_rollout: whether the engine's log-probabilities are taken for those before the update.
        update: number of the update, from 1, for messages.
        critic: estimates values, where the algorithm needs them: a `critic.Critic`.
        only_critic: whether the actor gets no gradient.
        world: who else computes gradients.
    """

    actor: nn.Module
    dtype: torch.dtype
    budget: int
    algorithm: Algorithm
    batch: Batch
    credits: Credits
    trust_rollout: bool
    update: int
    critic: nn.Module | None = None
    only_critic: bool = False
    world: World = ALONE

    def accumulate(self, rows: Sequence[Row], tally: Tally, audit: Audit | None) -> float:
        """Add up the gradients of this rank's share of a minibatch and return its share of the loss."""
        weights = token_weights([row.sampled for row in rows], self.algorithm.aggregation)
        weight_of = {id(row): weight for row, weight in zip(rows, weights, strict=True)}
        kept = [row for row in rows if self._teaches(row)]
        if self.world.first:
            tally.skip(len(rows) - len(kept))
        total = 0.0
        # Where nothing teaches, a gradient of zero is computed, for an optimizer wants one.
        for micro in micro_batches(kept, self.budget, self.world) if kept else [spare(rows)]:
            if micro.spare:
                self._compute_nothing(micro)
                continue
            tokens = self._forward(micro, audit)
            losses_N = self._losses(tokens, micro)
            weights_M = losses_N.new_tensor([weight_of[id(row)] for row in micro.rows])
            loss = (losses_N * weights_M[tokens.trajectory]).sum()
            self._backward(loss)
            total += loss.item()
            tally.add(tokens, micro)
        return total

    def _backward(self, loss: Tensor) -> None:
        """Add up gradients; where they are averaged over ranks they are to be the sum."""
        (loss * self.world.size).backward()

    def _compute_nothing(self, micro: MicroBatch) -> None:
        """Take part in what other ranks compute, with a gradient of zero."""
        logprobs_N, _, values_N = self._compute(micro)
        learning = [part for part in (logprobs_N, values_N) if part is not None and part.requires_grad]
        self._backward(torch.stack([part.sum() for part in learning]).sum() * 0.0)

    def _teaches(self, row: Row) -> bool:
        """Return False if the algorithm says that the trajectory's loss and gradient are exactly 0."""
        skips = self.algorithm.skips_zero_advantage
        return not skips or any(self.credits[row.group][row.member].advantages)

    def _forward(self, micro: MicroBatch, audit: Audit | None) -> Tokens:
        """Put together what the algorithm sees of a micro-batch."""
        logprobs_N, entropy_N, values_N = self._compute(micro)
        if audit:
            audit.compare(logprobs_N, micro)
        credits = [self.credits[row.group][row.member] for row in micro.rows]
        returns = [credit.returns for credit in credits if credit.returns is not None]
        rollout_N = micro.rollout_logprobs_N.to(logprobs_N)
        return Tokens(
            logprobs=logprobs_N,
            old_logprobs=self._old(micro, logprobs_N.detach(), rollout_N),
            rollout_logprobs=rollout_N,
            advantages=_column([credit.advantages for credit in credits], logprobs_N),
            trajectory=micro.trajectory_N.to(logprobs_N.device),
            turn=micro.turn_N.to(logprobs_N.device),
            trajectories=len(micro.rows),
            entropy=entropy_N,
            reference_logprobs=_facts(self.batch.reference_logprobs, micro, logprobs_N),
            returns=_column(returns, logprobs_N) if returns else None,
            values=values_N,
            old_values=_facts(self.batch.values, micro, logprobs_N),
        )

    def _compute(self, micro: MicroBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return log-probabilities, entropies and values, each (N,)."""
        with torch.set_grad_enabled(not self.only_critic):
            hidden_RD, logprobs_N, entropy_N = self.actor(micro, self.dtype)
        values_N = self.critic(micro, hidden_RD, self.dtype) if self.critic else None
        return logprobs_N, entropy_N, values_N

    def _old(self, micro: MicroBatch, own_N: Tensor, rollout_N: Tensor) -> Tensor:
        """Return the log-probabilities before the update.

        Without a pass of their own they are the actor's current ones: exact as long as an update is one
        step, and tokens that no model sampled have no others.
        """
        recomputed_N = _facts(self.batch.logprobs, micro, own_N)
        before_N = own_N if recomputed_N is None else recomputed_N
        return torch.where(rollout_N.isnan(), before_N, rollout_N) if self.trust_rollout else before_N

    def _losses(self, tokens: Tokens, micro: MicroBatch) -> Tensor:
        losses_N = self.algorithm.loss(tokens)
        if losses_N.shape != tokens.logprobs.shape:
            raise AgentRLError(
                f"{type(self.algorithm).__name__}.loss returned the shape {tuple(losses_N.shape)}; it "
                f"must return the loss of each token, {tuple(tokens.logprobs.shape)}"
            )
        check_finite(losses_N, self.update, [row.task for row in micro.rows])
        return losses_N


def _facts(facts: Facts | None, micro: MicroBatch, like: Tensor) -> Tensor | None:
    return None if facts is None else _column([facts[row.group][row.member] for row in micro.rows], like)


def _column(lists: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    return torch.cat([like.new_tensor(numbers) for numbers in lists])


@torch.no_grad()
def compute_facts(
    batch: TrieBatch, compute: Callable[[MicroBatch], Tensor], budget: int, world: World = ALONE
) -> Facts:
    """Return for all sampled tokens what `compute` says of a micro-batch's, (N,); ranks share the work."""
    found: list[tuple[int, int, list[float]]] = []
    rows = [row for minibatch in batch.minibatches for row in minibatch]
    for micro in micro_batches(rows, budget, world) if rows else ():
        pieces = compute(micro).cpu().split([row.sampled for row in micro.rows])
        if not micro.spare:
            found += [(r.group, r.member, x.tolist()) for r, x in zip(micro.rows, pieces, strict=True)]
    facts: Facts = [[[] for _ in group.trajectories] for group in batch.groups]
    for group, member, numbers in (each for rank in world.gather(found) for each in rank):
        facts[group][member] = numbers
    return facts


def check_credits(groups: Sequence[Group], credits: Credits, algorithm: Algorithm) -> None:
    """Raise AgentRLError unless each sampled token of each trajectory has its credit.

    Returns are for a critic: all trajectories have them, or none.
    """
    name = type(algorithm).__name__
    if [len(group.trajectories) for group in groups] != [len(members) for members in credits]:
        raise AgentRLError(f"{name}.credit must return one Credit for each trajectory of each group")
    if len({credit.returns is None for members in credits for credit in members}) > 1:
        raise AgentRLError(
            f"{name}.credit gave returns to some trajectories only; give them to all, or to none"
        )
    for group, members in zip(groups, credits, strict=True):
        for trajectory, credit in zip(group.trajectories, members, strict=True):
            found = {len(x) for x in (credit.advantages, credit.returns) if x is not None}
            if found != {trajectory.sampled}:
                raise AgentRLError(
                    f"{name}.credit gave {max(found)} numbers to a trajectory of task {group.task.id!r} "
                    f"that sampled {trajectory.sampled} tokens"
                )
