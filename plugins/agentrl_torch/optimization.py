"""How gradients become new weights: AdamW, a learning rate that follows a schedule, bounded gradients."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from agentrl.errors import AgentRLError
from agentrl_torch.checkpoint import whole

Schedule = Literal["constant", "linear", "cosine"]


def schedule_factor(schedule: Schedule, update: int, steps: int, warmup_steps: int) -> float:
    """Return what the learning rate is multiplied by in update `update` (from 0) of `steps`.

    It rises linearly over the first `warmup_steps` updates; then it stays, or falls to 0 after the last one.
    """
    if update < warmup_steps:
        return (update + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (update - warmup_steps) / max(1, steps - warmup_steps))
    return 1 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2


def adamw(
    learnt: Iterable[torch.nn.Parameter],
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.AdamW:
    """Return the optimizer; biases and norms do not decay."""
    parameters = [parameter for parameter in learnt if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        betas=betas,
        weight_decay=weight_decay,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def step(optimizer: torch.optim.Optimizer, max_norm: float, update: int, whose: str = "") -> float:
    """Bound the gradient's norm to `max_norm`, move the weights, and return the norm before.

    `whose` says in messages whose gradient it is, with a space behind.

    Raises:
        AgentRLError: the gradient is not finite; the weights stay as they are.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(whole(torch.nn.utils.clip_grad_norm_(parameters, max_norm)))
    if not math.isfinite(norm):
        optimizer.zero_grad()
        raise not_finite(norm, update, whose)
    optimizer.step()
    optimizer.zero_grad()
    return norm


def not_finite(norm: float, update: int, whose: str) -> AgentRLError:
    """Return the error of a gradient with such a norm."""
    return AgentRLError(f"update {update}: the {whose}gradient is {norm}{_REMEDY}")


def check_finite(losses_N: Tensor, update: int, tasks: Iterable[str]) -> None:
    """Raise AgentRLError, naming the update and its tasks, if a token's loss is not finite."""
    if not bool(losses_N.isfinite().all()):
        names = ", ".join(repr(task) for task in dict.fromkeys(tasks))
        raise AgentRLError(f"update {update}: the loss is not finite (tasks {names}){_REMEDY}")


_REMEDY = (
    "; the weights were left as they are; look at the rewards of this update, and lower "
    "trainer.learning_rate or trainer.max_grad_norm"
)
