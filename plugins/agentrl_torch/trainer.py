"""Trains the actor on token tries: every token that trajectories share is computed once, and exactly.

The way of an update: groups -> `micro_batch` -> `trie` -> `forward`, through `attention` -> log-probabilities
of sampled tokens -> the algorithm's loss -> gradients, added up over micro-batches with the denominators of
the whole minibatch (`update`) -> `optimization`. On the CPU the same inputs give the same bits.

`training` does it in this process; with several `ranks` each is a process with a `training` of its own, which
computes its share (`sharing`) and has its part of the weights (`fsdp`).

The log-probabilities before the update ("old") need no pass of their own by default: they are those that the
engine reported, which the audit compares with the trainer's own before anything is written.

An algorithm that needs values gets a `critic` beside the actor: estimated before the update, for credit, and
again inside it, with gradient.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from agentrl.errors import UsageError
from agentrl.footprint import Footprint, Rehearsal, Workload
from agentrl.interfaces import Algorithm, Crew, Resources, Trainer
from agentrl.types import Batch, Credit, Group, Need
from agentrl_torch import micro_batch, rehearsal
from agentrl_torch.config import TorchConfig
from agentrl_torch.ranks import Ranks
from agentrl_torch.sharding import Whole
from agentrl_torch.training import Training
from agentrl_torch.update import TrieBatch, check_credits
from agentrl_torch.world import ALONE


class TorchTrainer(Trainer):
    """Trains any causal language model of transformers, in this process or in several of their own."""

    provides: ClassVar[frozenset[Need]] = frozenset({"values", "reference", "logprobs"})

    class Config(TorchConfig):
        """Options of the torch trainer."""

    config: TorchConfig

    @property
    def crew(self) -> Crew:
        """Return the ranks, where there are several."""
        return Crew(self.config.ranks if self.config.ranks > 1 else 0)

    def check(self, needs: frozenset[Need]) -> None:
        """Raise UsageError if there are options that cannot be combined, or that nothing needs."""
        self.config.check(needs)

    def footprint(
        self, model: Path | str, needs: frozenset[Need], resources: Resources, work: Workload
    ) -> Footprint:
        """Return what it takes of memory, from the model's config alone."""
        from agentrl_torch.footprint import of_trainer

        return of_trainer(self.config, model, needs, resources, work)

    def start(self, model: Path | str, needs: frozenset[Need], steps: int, resources: Resources) -> None:
        """Load the actor, and what `needs` asks for; `steps` is the length of the schedule."""
        self.training = self._make()
        self.training.start(model, needs, steps, resources)

    def _make(self) -> Training | Ranks:
        """Return who trains."""
        if self.config.ranks == 1:
            return Training(self.config, Whole(), ALONE)
        from agentrl_torch.fsdp import FSDP

        return Ranks(self.config, FSDP())

    def prepare(self, groups: list[Group], needs: frozenset[Need], version: int | None = None) -> TrieBatch:
        """Return the batch, without failed trajectories, with what `needs` asks for.

        `logprobs` are there if they are needed, or had to be recomputed (see `TorchConfig.old_logprobs`).
        """
        groups = [Group(g.task, [t for t in g.trajectories if not t.failed]) for g in groups]
        groups = [group for group in groups if group.trajectories]
        rows = micro_batch.encode(groups, version)
        batch = TrieBatch(groups, minibatches=micro_batch.split(rows, self.config.minibatches))
        self.training.prepare(batch, needs)
        return batch

    def update(self, batch: Batch, credits: list[list[Credit]], algorithm: Algorithm) -> dict[str, float]:
        """Train on the batch and return metrics: loss, gradient norm, learning rate, what `loss` logged.

        Raises:
            AgentRLError: engine and trainer disagree about a token, or a loss or gradient is not finite.
        """
        if not isinstance(batch, TrieBatch):
            raise UsageError("the torch trainer can only train on a batch that it has prepared itself")
        if not batch.minibatches:
            raise UsageError("there is nothing to train on: no trajectory of the update has a sampled token")
        check_credits(batch.groups, credits, algorithm)
        return self.training.update(batch, credits, algorithm)

    def rehearse(self, tokens: int, group_size: int, algorithm: Algorithm) -> Rehearsal | None:
        """Compute an update of the longest episodes, without moving anything."""
        config = self.config
        groups = rehearsal.longest_groups(tokens, group_size, config.micro_batch_tokens, config.ranks)
        batch, credits = rehearsal.batch_of(groups, values="values" in algorithm.needs)
        return self.training.rehearse(batch, credits, algorithm)

    def weights(self) -> Mapping[str, Tensor]:
        """Return the actor's weights for an engine, tied ones once; an adapter is merged in."""
        return self.training.weights()

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to go on exactly."""
        self.training.save(folder)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote. The reference stays the model that `start` loaded."""
        self.training.load(folder)

    def save_model(self, folder: Path) -> None:
        """Write the actor as a model directory that `--model` and transformers can load."""
        self.training.save_model(folder)

    def close(self) -> None:
        """Release the models and the optimizers' state."""
        if training := self.__dict__.pop("training", None):
            training.close()
