"""How models lie over the ranks of a trainer: here, whole in the only one there is."""

import copy
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from agentrl_torch import loading, optimization
from agentrl_torch.learner import Learner, Recipe
from agentrl_torch.world import World


class Sharding(ABC):
    """Lays out what is called in an update: models that learn, and one that does not.

    It goes to every rank, so it can be pickled; `begin` comes first there.
    """

    def begin(self, world: World, device: str, kept: torch.dtype) -> None:
        """Make this process ready for models whose weights are to be of the type `kept`."""
        self.world = world
        self.device = device
        self.kept = kept

    def load(self, path: Path | str, *, widened: bool) -> PreTrainedModel:
        """Load a model; its weights may be narrower than they are to be at first if `widened`."""
        return loading.load_model(path, self.kept, self.device)

    def computing(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        """Return a context in which a model that was only loaded computes where it is going to."""
        return nullcontext()

    def copied(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a copy of what is trained, on the same frozen weights."""
        frozen = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
        return copy.deepcopy(model, frozen)

    @abstractmethod
    def learner(self, recipe: Recipe, dtype: torch.dtype) -> Learner:
        """Return the learner; `dtype` is what matrix products are computed in."""

    @abstractmethod
    def frozen(self, network: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Return what to call in place of a network that never learns."""


class Whole(Sharding):
    """Leaves everything as it is."""

    def learner(self, recipe: Recipe, dtype: torch.dtype) -> Learner:
        """Return the learner with a new optimizer."""
        return with_adamw(recipe)

    def frozen(self, network: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Return the network."""
        return network


def with_adamw(recipe: Recipe) -> Learner:
    """Return a learner whose parameters AdamW moves as they are."""
    optimizer = optimization.adamw(recipe.module.parameters(), recipe.rate, recipe.betas, recipe.weight_decay)
    return Learner(recipe.name, recipe.network, recipe.module, optimizer, recipe.rate, recipe.max_norm)
