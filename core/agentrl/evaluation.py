"""Measures a policy on held-out tasks: every metric with its confidence interval, and pass@k."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from statistics import fmean
from typing import Any

from agentrl.config import EvaluationConfig
from agentrl.errors import AgentRLError
from agentrl.judging import WeightedReward, judge
from agentrl.panel import Panel, scenario_of
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


async def evaluate(
    simulator: Simulator,
    panel: Panel,
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
        panel.tasks,
        settings.repeats,
        seed=derive(settings.seed, "evaluate"),
        temperature=settings.temperature,
        progress=progress,
    )
    await judge(groups, rewards)
    refuse_if_all_failed(groups)
    return summarize(groups, panel.split, whole_scenarios=panel.whole_scenarios), groups


def refuse_if_all_failed(groups: Sequence[Group]) -> None:
    """Stop a run in which no episode works.

    Raises:
        AgentRLError: every trajectory failed; it gives the commonest cause.
    """
    trajectories = [t for group in groups for t in group.trajectories]
    if all(t.failed for t in trajectories):
        (cause, times), *_ = Counter(t.error for t in trajectories).most_common(1)
        raise AgentRLError(f"all {len(trajectories)} episodes failed, {times} of them with: {cause}")


def summarize(groups: Sequence[Group], split: str, *, whole_scenarios: bool = False) -> Evaluation:
    """Return the estimates of all metrics of played and judged groups.

    `success/difficulty_N` is there where tasks differ in difficulty; `scenario_success`, the chance that all
    tasks of a scenario succeed, where the groups hold `whole_scenarios`.
    """
    played = [[t for t in group.trajectories if not t.failed] for group in groups]
    total = sum(len(group.trajectories) for group in groups)
    measured = {
        name: estimate(values, proportion=_is_proportion(name, values))
        for name, values in _by_metric(played).items()
    }
    tasks = [group.task for group in groups]
    found: dict[str, Estimate] = {
        **{name: measured.pop(name) for name in ("reward", "success") if name in measured},
        **(_by_scenario(tasks, played) if whole_scenarios else {}),
        **_by_difficulty(tasks, played),
        **measured,
        **_passes(played),
    }
    return Evaluation(split, len(groups), total, total - sum(map(len, played)), found)


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


def _by_scenario(tasks: Sequence[Task], played: Sequence[Sequence[Trajectory]]) -> dict[str, Estimate]:
    """Return the share of scenarios of which all tasks succeed.

    Attempts at different tasks are independent, so the product of the tasks' success rates is an unbiased
    estimate of the chance that one attempt at each succeeds; with one attempt it is 0 or 1. A scenario with a
    task of which every episode failed is left out.
    """
    scenarios: dict[str, list[Sequence[Trajectory]]] = {}
    for task, trajectories in zip(tasks, played, strict=True):
        scenarios.setdefault(scenario_of(task), []).append(trajectories)
    whole = [each for each in scenarios.values() if all(each)]
    chances = [[prod(fmean(map(succeeded, attempts)) for attempts in each)] for each in whole]
    return {"scenario_success": estimate(chances, proportion=True)} if chances else {}


def _by_difficulty(tasks: Sequence[Task], played: Sequence[Sequence[Trajectory]]) -> dict[str, Estimate]:
    """Return success by difficulty, where there are several."""
    levels: dict[int, list[list[float]]] = {}
    for task, trajectories in zip(tasks, played, strict=True):
        if task.difficulty is not None and trajectories:
            levels.setdefault(task.difficulty, []).append([float(succeeded(t)) for t in trajectories])
    return {
        f"success/difficulty_{level}": estimate(levels[level], proportion=True)
        for level in (sorted(levels) if len(levels) > 1 else ())
    }


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
