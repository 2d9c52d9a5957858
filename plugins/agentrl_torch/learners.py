"""Who learns in an update, and how fast: the actor, and a critic that may first learn alone.

An actor that follows an untrained critic gets worse, so at first only the critic learns: until it is good
enough, or has had its time. The actor's learning rate rises from its own first update on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrl_torch import checkpoint, optimization
from agentrl_torch.critic import CriticConfig
from agentrl_torch.learner import Learner


@dataclass(frozen=True, slots=True)
class Pace:
    """The schedule of learning rates: its shape, how many updates it is for, and over how many they rise."""

    schedule: optimization.Schedule
    steps: int
    warmup_steps: int

    def factor(self, update: int, own: int) -> float:
        """Return the part of its rate that a model learns with in update `update`, its `own`-th; from 0."""
        along = optimization.schedule_factor(self.schedule, update, self.steps, self.warmup_steps)
        return min(along, (own + 1) / self.warmup_steps) if own < self.warmup_steps else along


class Learners:
    """The models of a run that learn, and where they are."""

    def __init__(self, actor: Learner, critic: Learner | None, pace: Pace, config: CriticConfig) -> None:
        """Take the models; `config` says for how long the critic learns alone."""
        self.actor = actor
        self.critic = critic
        self.updates = 0
        self._pace = pace
        self._until = config.warmup_until
        # A short run is to train its actor as well.
        self._longest = min(config.warmup_updates, pace.steps // 2)
        self._alone = 0
        self._warm = critic is None or self._longest == 0

    @property
    def all(self) -> list[Learner]:
        """Return all models that learn."""
        return [self.actor] if self.critic is None else [self.actor, self.critic]

    @property
    def only_critic(self) -> bool:
        """Return whether the critic still learns alone."""
        return not self._warm

    def begin(self, explained: float | None) -> dict[str, float]:
        """Begin an update, and return the learning rates and how the critic is.

        Args:
            explained: share of the returns' variance that the critic explained; None without a critic.
        """
        metrics = {}
        if explained is not None:
            self._warm |= explained >= self._until or self._alone >= self._longest
            metrics = {"critic/explained_variance": explained, "critic/warm": float(self._warm)}
        for each in self.all:
            each.clear()
            own = self.updates - (self._alone if each is self.actor else 0)
            metrics |= _named(each, "learning_rate", each.follow(self._pace.factor(self.updates, own)))
        return metrics

    def moving(self, *, with_critic: bool) -> list[Learner]:
        """Return the models that this update moves."""
        if self.critic is None or not with_critic:
            return [self.actor]
        return self.all if self._warm else [self.critic]

    def end(self, norms: list[tuple[Learner, float]], *, alone: bool) -> dict[str, float]:
        """End an update, and return the mean gradient norms of those that moved."""
        self.updates += 1
        self._alone += alone
        found: dict[str, float] = {}
        for each in dict.fromkeys(learner for learner, _ in norms):
            mine = [norm for learner, norm in norms if learner is each]
            found |= _named(each, "grad_norm", sum(mine) / len(mine))
        return found

    def save(self, folder: Path, *, write: bool) -> None:
        """Write all that `load` needs to go on exactly, if this is the rank to `write`."""
        for each in self.all:
            each.save(folder, write=write)
        if write:
            state = {"updates": self.updates, "alone": self._alone, "warm": self._warm}
            checkpoint.write_state(folder, state)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote.

        Raises:
            UsageError: something is missing, or of another model.
        """
        for each in self.all:
            each.load(folder)
        state: dict[str, Any] = checkpoint.read_state(folder)
        self.updates, self._alone, self._warm = state["updates"], state["alone"], state["warm"]


def _named(learner: Learner, what: str, number: float) -> dict[str, float]:
    """Return a metric under the model's name: the actor's are the trainer's."""
    return {f"{'trainer' if learner.name == 'actor' else learner.name}/{what}": number}
