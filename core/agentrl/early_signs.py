"""Sets the rewards of training beside what is measured on held-out tasks.

A reward that rises while held-out success falls is the earliest sign that the model learns to please the
reward, or knows its training tasks by heart.
"""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from agentrl.evaluation import Evaluation


def rewards_between(rows: Iterable[Mapping[str, Any]], after: int, until: int) -> list[float]:
    """Return the mean reward of each update after step `after`, up to `until`; `rows` are its metrics."""
    between = [row.get("reward") for row in rows if after < row["step"] <= until]
    return [reward for reward in between if reward is not None]


def sign_of_overfitting(rewards: list[float], before: Evaluation, now: Evaluation) -> str | None:
    """Return what to warn of; None if nothing speaks for it.

    Args:
        rewards: of the updates between the two evaluations; they rose if the second half is better on
            average.
        before: the evaluation before; success fell if it is now below the interval that it had.
        now: the new one.
    """
    old, new = before.metrics.get("success"), now.metrics.get("success")
    half = len(rewards) // 2
    if old is None or new is None or not half:
        return None
    first, second = fmean(rewards[:half]), fmean(rewards[-half:])
    if second <= first or not new.mean < old.low:
        return None
    return (
        f"since the last evaluation the reward in training rose from {first:.3f} to {second:.3f}, but the "
        f"success on held-out tasks fell from {old.mean:.3f} to {new.mean:.3f}, below its 95% interval; the "
        "model may please the reward without solving the task, or know its tasks by heart: read trajectories/"
    )
