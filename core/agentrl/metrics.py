"""The numbers of one update's rollouts: what was earned, how long it took, what carried no signal."""

from collections.abc import Sequence
from statistics import fmean

from agentrl.evaluation import measure
from agentrl.types import Group, Stop, Trajectory

_TRUNCATIONS: tuple[Stop, ...] = ("max_turns", "max_tokens")


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Return the means over the trajectories that did not fail, and the share of those that did.

    `truncated` is the share that did not come to an end, `truncated/max_turns` and `truncated/max_tokens`
    say why. `cut_off` is the share that failed for being slow. `groups/no_signal` is the share of groups
    whose rewards are all equal: group-relative advantages are zero there.
    """
    trajectories = [t for group in groups for t in group.trajectories]
    rows = [measure(t) for t in trajectories if not t.failed]
    names = dict.fromkeys(name for row in rows for name in row)
    means = {name: fmean(row[name] for row in rows if name in row) for name in names}
    return {
        **means,
        **{f"truncated/{stop}": _share(trajectories, stop) for stop in _TRUNCATIONS},
        "failed": 1 - len(rows) / len(trajectories),
        "cut_off": fmean(t.stop == "cut" for t in trajectories),
        "groups/no_signal": fmean(not has_signal(group) for group in groups),
        "groups/played": float(len(groups)),
        "rollout/trajectories": float(len(trajectories)),
        "rollout/tokens": float(sum(t.sampled for t in trajectories)),
    }


def staleness(groups: Sequence[Group], version: int) -> dict[str, float]:
    """Return how many updates the weights that sampled lag behind `version`: mean over tokens, and most."""
    spans = [span for group in groups for each in group.trajectories for span in each.spans]
    lags = [(version - span.version, len(span.logprobs)) for span in spans]
    tokens = sum(length for _, length in lags)
    return {
        "staleness/mean": sum(lag * length for lag, length in lags) / max(1, tokens),
        "staleness/max": float(max((lag for lag, _ in lags), default=0)),
    }


def has_signal(group: Group) -> bool:
    """Return whether the rewards of a group differ, so that there is something to compare."""
    return len({t.reward for t in group.trajectories if not t.failed}) > 1


def _share(trajectories: Sequence[Trajectory], stop: Stop) -> float:
    """Return the share of the trajectories that did not fail which ended for the reason `stop`."""
    played = [t.stop for t in trajectories if not t.failed]
    return played.count(stop) / max(1, len(played))
