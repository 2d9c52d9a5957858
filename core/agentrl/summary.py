"""What a whole run amounts to: every metric before and after, on the same held-out tasks."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from agentrl.evaluation import Evaluation
from agentrl.loop import Progress
from agentrl.statistics import Estimate

# The step under which the evaluation before a warm-up is kept; step 0 is before reinforcement learning.
UNTRAINED = -1


def summarize_run(
    evaluations: Mapping[int, Evaluation], progress: Progress, names: Mapping[str, str]
) -> dict[str, Any]:
    """Return the summary of a run, JSON-safe.

    Args:
        evaluations: by step; the first is `before`, the last `after`.
        progress: where the run ended.
        names: what people call metrics (see `Env.metric_names`).
    """
    first, last = evaluations[min(evaluations)], evaluations[max(evaluations)]
    return {
        "held_out_tasks": last.tasks,
        "split": last.split,
        "metrics": {
            name: {"before": _plain(first.metrics.get(name)), "after": asdict(after)}
            for name, after in last.metrics.items()
        },
        "curve": {
            step: {name: value.mean for name, value in evaluation.metrics.items()}
            for step, evaluation in sorted(evaluations.items())
        },
        "metric_names": {name: names[name] for name in last.metrics if name in names},
        "failed_held_out_episodes": last.failed,
        "steps": progress.step,
        "wall_seconds": progress.seconds,
        "trajectories": progress.trajectories,
        "tokens": progress.tokens,
    }


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return asdict(estimate) if estimate else None
