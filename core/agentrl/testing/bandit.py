"""The rule that an algorithm learns: on a bandit, from its own credit and loss. Needs torch.

A group pulls the arms of one bandit, as a softmax over a few numbers draws them. One arm pays. With the
credit and the loss of the algorithm, gradient descent on these numbers has to make that arm likelier.

Shapes: A arms, N tokens of an update.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from agentrl.aggregation import token_weights
from agentrl.interfaces import Tokens
from agentrl.testing.algorithms import AlgorithmUnderTest, make_batch
from agentrl.testing.losses import loss_of
from agentrl.testing.rules import RuleBroken, RuleSkipped, no_exception
from agentrl.types import Action, Group, Observation, Outcome, Segment, Span, Task, Trajectory, Turn

ARMS = 4
PAYS = 2
GROUPS, SIZE, UPDATES = 4, 8, 40
# What the likelihood of the arm that pays, 1/4 at first, has to become.
ENOUGH = 0.5


def learns_which_arm_pays(subject: AlgorithmUnderTest) -> None:
    """The arm that pays becomes likelier, update by update."""
    if "demonstrations" in subject.new().needs:
        raise RuleSkipped("it learns from demonstrations, not from rewards")
    logits_A = torch.zeros(ARMS, dtype=torch.float64, requires_grad=True)
    value = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits_A, value], lr=0.1)
    dice = torch.Generator().manual_seed(11)
    for _ in range(UPDATES):
        arms_N = torch.multinomial(logits_A.detach().softmax(0), GROUPS * SIZE, True, generator=dice)
        loss = _loss(subject, arms_N, logits_A.log_softmax(0)[arms_N], value.expand(len(arms_N)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    likelihood = float(logits_A.detach().softmax(0)[PAYS])
    if not likelihood >= ENOUGH:
        raise RuleBroken(
            "learns which arm pays",
            f"after {UPDATES} updates on a bandit with {ARMS} arms, the only one that pays is pulled with "
            f"probability {likelihood:.2f}",
            "look for a sign: what went better than usual gets a positive advantage, and a loss that falls "
            "as the log-probability rises",
        )


def _loss(subject: AlgorithmUnderTest, arms_N: Tensor, logprobs_N: Tensor, values_N: Tensor) -> Tensor:
    """Return the loss of an update, as a trainer puts it together."""
    algorithm = subject.new()
    groups = _groups(arms_N.tolist(), logprobs_N.tolist())
    batch = make_batch(algorithm, groups)
    critic = "values" in algorithm.needs
    if critic:
        batch.values = [[[float(values_N[0].detach())] for _ in group.trajectories] for group in groups]
    with no_exception("credit of a bandit", "handle trajectories of a single turn and token"):
        credits = [credit for group in algorithm.credit(batch) for credit in group]
        advantages_N = _column([credit.advantages for credit in credits])
        returns_N = _column([credit.returns or () for credit in credits]) if critic else None
    tokens = Tokens(
        logprobs=logprobs_N,
        old_logprobs=logprobs_N.detach(),
        rollout_logprobs=logprobs_N.detach(),
        advantages=advantages_N,
        trajectory=torch.arange(len(arms_N)),
        turn=torch.zeros(len(arms_N), dtype=torch.long),
        trajectories=len(arms_N),
        entropy=-logprobs_N.detach(),
        reference_logprobs=logprobs_N.detach() - 0.1 if "reference" in algorithm.needs else None,
        returns=returns_N,
        values=values_N if critic else None,
        old_values=values_N.detach() if critic else None,
    )
    aggregation = replace(algorithm.aggregation, length=algorithm.aggregation.length or 1)
    weights = token_weights([1] * len(arms_N), aggregation)
    return (loss_of(subject, tokens, "a bandit") * torch.tensor(weights, dtype=torch.float64)).sum()


def _column(numbers: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([each[0] for each in numbers], dtype=torch.float64)


def _groups(arms: list[int], logprobs: list[float]) -> list[Group]:
    pulled = [_trajectory(*each) for each in zip(arms, logprobs, strict=True)]
    task = Task("bandit")
    return [Group(task, pulled[first : first + SIZE]) for first in range(0, len(pulled), SIZE)]


def _trajectory(arm: int, logprob: float) -> Trajectory:
    success = arm == PAYS
    return Trajectory(
        Task("bandit"),
        turns=[Turn(Observation("Pull an arm.", state_key="bandit"), Action(f"arm {arm}", f"arm {arm}"))],
        final=Observation("The end.", done=True, state_key=f"after arm {arm}"),
        segments=[Segment([0, arm], [Span(1, [logprob], 0)])],
        outcome=Outcome(success),
        reward=float(success),
    )
