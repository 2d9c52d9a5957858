"""The numbers of one update's rollouts: what was earned, how long it took, what carried no signal."""

from collections.abc import Sequence
from statistics import fmean

from agentrl.evaluation import measure
from agentrl.types import Group


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Return the means over the trajectories that did not fail, and the share of those that did.

    `groups/no_signal` is the share of groups whose rewards are all equal: group-relative advantages
    are zero there.
    """
    trajectories = [t for group in groups for t in group.trajectories]
    rows = [measure(t) for t in trajectories if not t.failed]
    names = dict.fromkeys(name for row in rows for name in row)
    means = {name: fmean(row[name] for row in rows if name in row) for name in names}
    return {
        **means,
        "failed": 1 - len(rows) / len(trajectories),
        "groups/no_signal": fmean(_silent(group) for group in groups),
        "rollout/trajectories": float(len(trajectories)),
        "rollout/tokens": float(sum(t.sampled for t in trajectories)),
    }


def _silent(group: Group) -> bool:
    return len({t.reward for t in group.trajectories if not t.failed}) < 2
