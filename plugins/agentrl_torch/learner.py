"""A model that learns: weights, optimizer, and how fast it goes. The actor is one, a critic another."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from agentrl_torch import checkpoint, optimization


@dataclass(frozen=True, slots=True)
class Learner:
    """A model with its optimizer.

    Attributes:
        name: "actor" or "critic".
        module: what is saved.
        optimizer: of the parameters that learn.
        rate: the learning rate at the top of the schedule.
        max_norm: longer gradients are scaled down to this norm.
    """

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    rate: float
    max_norm: float

    @classmethod
    def make(
        cls,
        name: str,
        module: nn.Module,
        learnt: Iterable[nn.Parameter],
        rate: float,
        max_norm: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> "Learner":
        """Return a learner with a new optimizer of the parameters `learnt`."""
        optimizer = optimization.adamw(learnt, rate, betas, weight_decay)
        return cls(name, module, optimizer, rate, max_norm)

    def follow(self, factor: float) -> float:
        """Set the learning rate to this part of its top, and return it."""
        rate = self.rate * factor
        optimization.set_rate(self.optimizer, rate)
        return rate

    def step(self, update: int) -> float:
        """Move the weights by their gradient and return its norm.

        Raises:
            AgentRLError: the gradient is not finite; the weights stay as they are.
        """
        return optimization.step(self.optimizer, self.max_norm, update, f"{self.name}'s ")

    def save(self, folder: Path) -> None:
        """Write weights and optimizer."""
        checkpoint.write(folder / self.name, self.module, self.optimizer)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            UsageError: it is not there, or of another model.
        """
        checkpoint.read(folder / self.name, self.module, self.optimizer)
