"""Tries out whether an update of the longest episodes fits, and leaves everything as it was.

What is computed is what an update computes: log-probabilities before it, values, the loss, gradients of a
full micro-batch, twice, for gradients that are there already take room. No optimizer moves; what it will keep
is held in empty tensors meanwhile.
"""

import random
from collections.abc import Iterable

import torch
from torch import Tensor

from agentrl.types import Credit, Group, Segment, Span, Task, Trajectory
from agentrl_torch import micro_batch
from agentrl_torch.micro_batch import HANDY
from agentrl_torch.update import TrieBatch

# Ids that any vocabulary has.
_IDS = range(2, 50)
# The weights that sampled: none that anybody has, so that no audit compares what nobody has said.
_NOBODYS = -1


def longest_groups(tokens: int, group_size: int, budget: int, ranks: int) -> list[Group]:
    """Return a group for each rank, as many episodes of `tokens` tokens as are computed at once.

    They have next to nothing in common, and all but the first token are sampled.
    """
    room = min(budget, max(HANDY, group_size * tokens))
    draw = random.Random(0)

    def trajectory(group: int) -> Trajectory:
        ids = [draw.choice(_IDS) for _ in range(tokens)]
        span = Span(1, [-1.0] * (tokens - 1), 0)
        return Trajectory(Task(f"rehearsal {group}"), segments=[Segment(ids, [span])], reward=1.0)

    return [
        Group(Task(f"rehearsal {group}"), [trajectory(group) for _ in range(max(1, room // tokens))])
        for group in range(ranks)
    ]


def batch_of(groups: list[Group], *, values: bool) -> tuple[TrieBatch, list[list[Credit]]]:
    """Return groups as the batch of one optimizer step, with credit for all that was sampled."""
    rows = micro_batch.encode(groups, version=_NOBODYS)
    credits = [
        [Credit([1.0] * t.sampled, [0.0] * t.sampled if values else None) for t in group.trajectories]
        for group in groups
    ]
    return TrieBatch(groups, minibatches=[rows]), credits


def moments(optimizers: Iterable[torch.optim.Optimizer]) -> list[Tensor]:
    """Return empty tensors as large as what AdamW will keep of parameters that it has not moved yet."""
    return [
        torch.empty_like(parameter.to_local() if hasattr(parameter, "to_local") else parameter)
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter not in optimizer.state
        for _ in range(2)
    ]
