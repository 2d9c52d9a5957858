"""What is known of success rates: Beta distributions whose evidence fades, because the policy changes."""

from collections.abc import Iterable, Mapping
from typing import Any

from agentrl import Group
from agentrl_harder_first.coverage import Belief

# Evidence of fewer trajectories than this says nothing, and is forgotten.
_NOTHING = 1e-3


class Beliefs:
    """Successes and failures by key, and when they were seen: old ones count less.

    Time is the number of calls of `learn`.
    """

    def __init__(self, prior: Belief, half_life: float) -> None:
        """Take what is believed without any evidence, and after how long evidence counts half."""
        self._prior = prior
        self._half_life = half_life
        self._time = 0
        self._seen: dict[str, tuple[float, float, int]] = {}

    def of(self, key: str) -> Belief:
        """Return what is believed of `key` now."""
        successes, failures = self._faded(key)
        return self._prior[0] + successes, self._prior[1] + failures

    def learn(self, results: Iterable[tuple[str, int, int]]) -> None:
        """Take note of successes and failures by key, seen now."""
        self._time += 1
        for key, successes, failures in results:
            before = self._faded(key)
            self._seen[key] = (before[0] + successes, before[1] + failures, self._time)
        for key in [key for key in self._seen if sum(self._faded(key)) < _NOTHING]:
            del self._seen[key]

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, JSON-safe."""
        return {"time": self._time, "seen": {key: list(each) for key, each in self._seen.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._time = state["time"]
        self._seen = {key: (each[0], each[1], each[2]) for key, each in state["seen"].items()}

    def _faded(self, key: str) -> tuple[float, float]:
        successes, failures, when = self._seen.get(key, (0.0, 0.0, self._time))
        weight = 0.5 ** ((self._time - when) / self._half_life)
        return weight * successes, weight * failures


def count(group: Group) -> tuple[int, int]:
    """Return how many trajectories of a group succeeded and failed their task; broken ones are neither."""
    outcomes = [t.outcome for t in group.trajectories if not t.failed and t.outcome is not None]
    successes = sum(outcome.success for outcome in outcomes)
    return successes, len(outcomes) - successes
