"""What a whole run amounts to: every metric before and after, on the same held-out tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from agentrl.evaluation import Evaluation
from agentrl.loop import Progress
from agentrl.statistics import Estimate

# The step under which the evaluation before a warm-up is kept; step 0 is before reinforcement learning.
UNTRAINED = -1


def summarize_run(
    evaluations: Mapping[int, Evaluation],
    progress: Progress,
    names: Mapping[str, str],
    metrics: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the summary of a run, JSON-safe.

    Args:
        evaluations: by step; the first is `before`, the last `after`.
        progress: where the run ended.
        names: what people call metrics (see `Env.metric_names`).
        metrics: of every update.
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
        "busy": busy(metrics),
    }


def busy(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return for how much of the updates' time engine, envs and trainer worked, and the mean staleness.

    Longer updates count more. Nothing of updates that were recorded without.
    """
    rows = [row for row in metrics if "busy/engine" in row]
    seconds = [row["time/rollout"] + row["time/update"] for row in rows]
    total = sum(seconds)
    found = {
        part: sum(row[f"busy/{part}"] * each for row, each in zip(rows, seconds, strict=True)) / total
        for part in ("engine", "envs", "trainer")
        if total > 0
    }
    stale = [row["staleness/mean"] for row in rows if row.get("staleness/mean") is not None]
    return found | ({"staleness": fmean(stale)} if stale else {})


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return asdict(estimate) if estimate else None
