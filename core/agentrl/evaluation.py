"""Measures a policy on held-out tasks: every metric with its confidence interval, and pass@k."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from agentrl.config import EvaluationConfig
from agentrl.errors import AgentRLError, UsageError
from agentrl.judging import WeightedReward, judge
from agentrl.seeds import derive
from agentrl.simulator import Simulator
from agentrl.statistics import Estimate, estimate, pass_at_k, pass_hat_k
from agentrl.types import Group, Task, Trajectory

# Metrics that count something, whatever their values.
_COUNTS = frozenset({"turns", "tokens"})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Estimates by metric, over the tasks of a panel.

    Attributes:
        split: the panel's split.
        tasks: how many tasks the panel has.
        trajectories: how many episodes were played.
        failed: how many of them failed; they count for no metric.
        metrics: by name; pass@k and pass^k are there for every k up to the number of repeats.
    """

    split: str
    tasks: int
    trajectories: int
    failed: int
    metrics: dict[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def means(self) -> dict[str, float]:
        """Return the mean of each metric as `eval/NAME`."""
        return {f"eval/{name}": value.mean for name, value in self.metrics.items()}


def panel(tasks: Sequence[Task], count: int, seed: int, split: str) -> list[Task]:
    """Return up to `count` tasks of a split, drawn by `seed`, in the split's order.

    Raises:
        UsageError: the split is empty.
    """
    if not len(tasks):
        raise UsageError(f"the split {split!r} has no tasks; choose another or add tasks to it")
    if count >= len(tasks):
        return list(tasks)
    chosen = Random(derive(seed, "panel", split)).sample(range(len(tasks)), count)
    return [tasks[index] for index in sorted(chosen)]


async def evaluate(
    simulator: Simulator,
    tasks: Sequence[Task],
    settings: EvaluationConfig,
    rewards: Sequence[WeightedReward],
    progress: Callable[[int, int], None],
) -> tuple[Evaluation, list[Group]]:
    """Play a panel and return its estimates and its groups.

    The same seed plays the same episodes, so two evaluations differ by the policy alone. Rewards are without
    what hooks add (see `judge`), so that they mean the same whatever the model was trained with.

    Raises:
        AgentRLError: every episode failed.
    """
    groups = await simulator.play(
        tasks,
        settings.repeats,
        seed=derive(settings.seed, "evaluate"),
        temperature=settings.temperature,
        progress=progress,
    )
    await judge(groups, rewards)
    refuse_if_all_failed(groups)
    return summarize(groups, settings.split), groups


def refuse_if_all_failed(groups: Sequence[Group]) -> None:
    """Stop a run in which no episode works.

    Raises:
        AgentRLError: every trajectory failed; it gives the commonest cause.
    """
    trajectories = [t for group in groups for t in group.trajectories]
    if all(t.failed for t in trajectories):
        (cause, times), *_ = Counter(t.error for t in trajectories).most_common(1)
        raise AgentRLError(f"all {len(trajectories)} episodes failed, {times} of them with: {cause}")


def summarize(groups: Sequence[Group], split: str) -> Evaluation:
    """Return the estimates of all metrics of played and judged groups."""
    played = [[t for t in group.trajectories if not t.failed] for group in groups]
    total = sum(len(group.trajectories) for group in groups)
    measured = {
        name: estimate(values, proportion=_is_proportion(name, values))
        for name, values in _by_metric(played).items()
    }
    failed = total - sum(map(len, played))
    return Evaluation(split, len(groups), total, failed, {**measured, **_passes(played)})


def measure(trajectory: Trajectory) -> dict[str, float]:
    """Return the metrics of one trajectory: rewards, success, those of the outcome, turns and tokens."""
    outcome = trajectory.outcome
    assert outcome is not None, "only trajectories that did not fail are measured"
    return {
        "reward": trajectory.reward,
        "success": float(outcome.success),
        **{name: score for name, score in trajectory.rewards.items() if name != "success"},
        **{f"env/{name}": float(value) for name, value in outcome.metrics.items()},
        "turns": float(len(trajectory.turns)),
        "tokens": float(trajectory.sampled),
        "truncated": float(trajectory.stop != "done"),
    }


def _by_metric(played: Sequence[Sequence[Trajectory]]) -> dict[str, list[list[float]]]:
    rows = [[measure(trajectory) for trajectory in group] for group in played]
    names = dict.fromkeys(name for row in rows for metrics in row for name in metrics)
    return {name: [[m[name] for m in row if name in m] for row in rows] for name in names}


def _is_proportion(name: str, per_task: Sequence[Sequence[float]]) -> bool:
    """Return whether a metric says only yes or no of each trajectory; a count of 1 does not."""
    return name not in _COUNTS and all(value in (0, 1) for values in per_task for value in values)


def _passes(played: Sequence[Sequence[Trajectory]]) -> dict[str, Estimate]:
    """Return pass@k and pass^k for every k that all tasks have attempts for."""
    counts = [(len(group), sum(succeeded(t) for t in group)) for group in played if group]
    repeats = min((attempts for attempts, _ in counts), default=0)
    found: dict[str, Estimate] = {}
    for k in range(1, repeats + 1 if repeats > 1 else 1):
        found[f"pass@{k}"] = _over_tasks(pass_at_k, counts, k)
        found[f"pass^{k}"] = _over_tasks(pass_hat_k, counts, k)
    return found


def succeeded(trajectory: Trajectory) -> bool:
    """Return whether the env judged a trajectory a success."""
    return trajectory.outcome is not None and trajectory.outcome.success


def _over_tasks(
    chance: Callable[[int, int, int], float], counts: Iterable[tuple[int, int]], k: int
) -> Estimate:
    return estimate([[chance(attempts, successes, k)] for attempts, successes in counts], proportion=True)
