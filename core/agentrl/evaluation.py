"""Measures a policy on held-out tasks: every metric with its confidence interval, and pass@k."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agentrl.breakdown import TagEffect, attempts, by_difficulty, by_label, by_scenario, by_tag, passes
from agentrl.config import EvaluationConfig
from agentrl.errors import AgentRLError
from agentrl.judging import Judge, WeightedReward
from agentrl.panel import Panel
from agentrl.seeds import derive
from agentrl.simulator import Simulator
from agentrl.statistics import Estimate, estimate
from agentrl.types import Group, Trajectory

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
        tags: success with and without each condition under which episodes were played.
    """

    split: str
    tasks: int
    trajectories: int
    failed: int
    metrics: dict[str, Estimate]
    tags: list[TagEffect] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "Evaluation":
        """Return the evaluation that is stored as `json`; those of older runs know no conditions."""
        return cls(
            json["split"],
            json["tasks"],
            json["trajectories"],
            json["failed"],
            {name: Estimate.from_json(value) for name, value in json["metrics"].items()},
            [TagEffect.from_json(each) for each in json.get("tags", ())],
        )

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
    what hooks add (see `Judge`), so that they mean the same whatever the model was trained with.

    Raises:
        AgentRLError: every episode failed.
    """
    groups = await simulator.play(
        panel.tasks,
        settings.repeats,
        seed=derive(settings.seed, "evaluate"),
        temperature=settings.temperature,
        progress=progress,
        judge=Judge(rewards),
    )
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

    `success/difficulty_N` and `success/LABEL=VALUE` are there where tasks differ in them; `scenario_success`,
    the chance that all tasks of a scenario succeed, where the groups hold `whole_scenarios`.
    """
    played = [Group(group.task, [t for t in group.trajectories if not t.failed]) for group in groups]
    total, left = (sum(len(group.trajectories) for group in those) for those in (groups, played))
    measured = {
        name: estimate(values, proportion=_is_proportion(name, values))
        for name, values in _by_metric(played).items()
    }
    tries = attempts(played)
    found: dict[str, Estimate] = {
        **{name: measured.pop(name) for name in ("reward", "success") if name in measured},
        **(by_scenario(played) if whole_scenarios else {}),
        **by_difficulty(played),
        **by_label(played),
        **measured,
    }
    for k in range(1, tries + 1) if tries > 1 else ():
        found |= passes(played, k)
    return Evaluation(split, len(groups), total, total - left, found, by_tag(played))


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


def _by_metric(played: Sequence[Group]) -> dict[str, list[list[float]]]:
    rows = [[measure(trajectory) for trajectory in group.trajectories] for group in played]
    names = dict.fromkeys(name for row in rows for metrics in row for name in metrics)
    return {name: [[m[name] for m in row if name in m] for row in rows] for name in names}


def _is_proportion(name: str, per_task: Sequence[Sequence[float]]) -> bool:
    """Return whether a metric says only yes or no of each trajectory; a count of 1 does not."""
    return name not in _COUNTS and all(value in (0, 1) for values in per_task for value in values)
