"""A model that learns: weights, optimizer, and how fast it goes. The actor is one, a critic another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from agentrl_torch import checkpoint, optimization


@dataclass(frozen=True, slots=True)
class Learner:
    """A model with its optimizer.

    Attributes:
        name: "actor" or "critic".
        network: what an update calls.
        module: what is saved.
        optimizer: of the parameters that learn.
        rate: the learning rate at the top of the schedule.
        max_norm: longer gradients are scaled down to this norm.
    """

    name: str
    network: nn.Module
    module: nn.Module
    optimizer: torch.optim.Optimizer
    rate: float
    max_norm: float

    def follow(self, factor: float) -> float:
        """Set the learning rate to this part of its top, and return it."""
        rate = self.rate * factor
        optimization.set_rate(self.optimizer, rate)
        return rate

    def clear(self) -> None:
        """Forget gradients."""
        self.optimizer.zero_grad()

    def step(self, update: int) -> float:
        """Move the weights by their gradient and return its norm.

        Raises:
            AgentRLError: the gradient is not finite; the weights stay as they are.
        """
        return optimization.step(self.optimizer, self.max_norm, update, f"{self.name}'s ")

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield whole tensors by name, tied ones once; all ranks have to go through all of them."""
        for name, tensor in checkpoint.unique_state(self.module).items():
            yield name, checkpoint.whole(tensor)

    def save(self, folder: Path, *, write: bool) -> None:
        """Write weights and optimizer, if this is the rank to `write`."""
        checkpoint.write(folder / self.name, self.module, self.optimizer, write=write)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, on as many ranks or on others.

        Raises:
            UsageError: it is not there, or of another model.
        """
        checkpoint.read(folder / self.name, self.module, self.optimizer)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a learner is made from: its optimizer moves all parameters of `module` that are not frozen.

    Attributes:
        name, network, module, rate, max_norm: as in `Learner`.
        betas, weight_decay: of AdamW.
    """

    name: str
    network: nn.Module
    module: nn.Module
    rate: float
    max_norm: float
    betas: tuple[float, float]
    weight_decay: float
