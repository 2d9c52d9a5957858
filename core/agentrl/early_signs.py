"""Sets the reward of training beside what is measured on held-out tasks, and says when the two part.

A reward that rises while held-out success does not is the earliest sign that the model learns to please the
reward, or knows its training tasks by heart. `evaluation.audit` names the metrics that have to go along:
success, and perhaps rewards of weight 0, which are not learnt from. A reward that is the same for all
teaches nothing at all, which is told, too.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from agentrl.config import RunConfig
from agentrl.errors import UsageError
from agentrl.evaluation import Evaluation
from agentrl.options import suggestion
from agentrl.statistics import Estimate, highest_rise
from agentrl.types import Group

# Over how many updates at either end the reward of training is averaged, at most; and how many that were all
# alike are worth a word.
UPDATES = 10


@dataclass(frozen=True, slots=True)
class Parting:
    """A metric that did not go along with the reward of training.

    Attributes:
        metric: its name.
        since: the step of the evaluation that it is compared with.
        reward: of training, just after that evaluation and just before the new one.
        before: the metric then.
        now: the metric now.
    """

    metric: str
    since: int
    reward: tuple[float, float]
    before: Estimate
    now: Estimate

    def __str__(self) -> str:
        old, new = self.before, self.now
        moved = "fell" if new.mean < old.mean else "only went"
        return (
            f"since step {self.since} the reward in training rose from {self.reward[0]:.3f} to "
            f"{self.reward[1]:.3f}, but {self.metric} on held-out tasks {moved} from {old.mean:.3f} to "
            f"{new.mean:.3f} (95% interval {new.low:.3f} to {new.high:.3f}); the model may please the reward "
            "without solving the task, or know its tasks by heart: read trajectories/"
        )


@dataclass(frozen=True, slots=True)
class Beside:
    """What is to be set beside an evaluation.

    Attributes:
        train_reward: mean over the updates since the evaluation before; None if there were none.
        parted: the audited metrics that did not go along with the reward.
        audit: the names of all audited metrics.
    """

    train_reward: float | None = None
    parted: Sequence[Parting] = ()
    audit: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data for evaluations.jsonl; nothing where no update came before."""
        if self.train_reward is None:
            return {}
        return {"train_reward": self.train_reward, "parted": [asdict(each) for each in self.parted]}

    def numbers(self) -> dict[str, float]:
        """Return numbers for hooks, as `eval/...`."""
        if self.train_reward is None:
            return {}
        return {"eval/train_reward": self.train_reward, "eval/parted": float(len(self.parted))}


@dataclass(frozen=True, slots=True)
class EarlySigns:
    """Looks at each evaluation of a run; `warn` is told of a metric when it parts from the reward."""

    config: RunConfig
    warn: Callable[[str], None]
    _told: set[str] = field(default_factory=set)

    def look(
        self,
        step: int,
        now: Evaluation,
        before: Mapping[int, Evaluation],
        metrics: Sequence[Mapping[str, Any]],
    ) -> Beside:
        """Return what to set beside the evaluation of `step`.

        Args:
            step: of the new evaluation.
            now: the new evaluation.
            before: the earlier ones, by step.
            metrics: of every update.

        Raises:
            UsageError: an audited metric is not measured.
        """
        # A reward that could judge nothing this time has said so itself.
        silent = self.config.rewards.keys() - now.metrics.keys()
        audit = tuple(name for name in self.config.evaluation.audit if name not in silent)
        _check_measured(audit, now)
        earlier = {each: evaluation for each, evaluation in before.items() if 0 <= each < step}
        since_last = rewards_between(metrics, max(earlier, default=step), step)
        if not since_last:
            return Beside(audit=audit)
        scale = sum(abs(each.weight) for each in self.config.rewards.values()) or 1.0
        found = [_parting(name, step, now, earlier, metrics, scale) for name in audit]
        parted = [each for each in found if each]
        self._tell(parted)
        return Beside(fmean(since_last), parted, audit)

    def _tell(self, parted: Sequence[Parting]) -> None:
        for each in parted:
            if each.metric not in self._told:
                self.warn(str(each))
        self._told.clear()
        self._told.update(each.metric for each in parted)


@dataclass(slots=True)
class FlatRewards:
    """Says when in `UPDATES` updates on end every trajectory got the same reward.

    A reward that does not fit the env, or tasks that are far too hard, look like that, and nothing else would
    tell: such a run goes on to its end and learns nothing.
    """

    warn: Callable[[str], None]
    _last: set[float] = field(default_factory=set)
    _updates: int = 0

    def look(self, groups: Sequence[Group]) -> None:
        """Look at the groups of an update."""
        found = {t.reward for group in groups for t in group.trajectories if not t.failed}
        if found != self._last:
            self._last, self._updates = found, 0
        self._updates += len(found) == 1
        if self._updates == UPDATES:
            (same,) = found
            self.warn(
                f"in the last {UPDATES} updates every trajectory had the same reward, {same:g}, so there was "
                "nothing to learn from: look at trajectories/ whether the reward fits what the agent "
                "does, and whether the tasks can be solved at all"
            )


def rewards_between(rows: Iterable[Mapping[str, Any]], after: int, until: int) -> list[float]:
    """Return the mean reward of each update after step `after`, up to `until`; `rows` are its metrics."""
    between = [row.get("reward") for row in rows if after < row["step"] <= until]
    return [reward for reward in between if reward is not None]


def lag(rise: float, before: Estimate, now: Estimate) -> float:
    """Return how far a metric has stayed behind a reward that rose by `rise`; 0 or less if it may not have.

    It has stayed behind if the most that it can have risen, at 95% confidence, is less than half of what the
    reward rose, or than half of what was left to rise: a metric of 0 to 1 cannot exceed 1.
    """
    expected = min(rise, max(0.0, 1 - before.mean)) / 2
    return expected - highest_rise(before, now) if rise > 0 else -math.inf


def _parting(
    name: str,
    step: int,
    now: Evaluation,
    earlier: Mapping[int, Evaluation],
    metrics: Sequence[Mapping[str, Any]],
    scale: float,
) -> Parting | None:
    """Return where the metric has stayed behind most; `scale` is the sum of the rewards' weights."""
    worst, found = 0.0, None
    for since, evaluation in earlier.items():
        rewards = rewards_between(metrics, since, step)
        size = min(len(rewards) // 2, UPDATES)
        old = evaluation.metrics.get(name)
        if old is None or not size:
            continue
        first, last = fmean(rewards[:size]), fmean(rewards[-size:])
        behind = lag((last - first) / scale, old, now.metrics[name])
        if behind > worst:
            worst, found = behind, Parting(name, since, (first, last), old, now.metrics[name])
    return found


def _check_measured(audit: Sequence[str], now: Evaluation) -> None:
    for name in audit:
        if name not in now.metrics:
            hint = suggestion(name, now.metrics, what="measured are")
            raise UsageError(f"evaluation.audit names {name!r}, which is not measured; {hint}")
