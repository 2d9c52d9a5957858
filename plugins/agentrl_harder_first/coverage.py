"""How likely a group is to teach something, and how trajectories are shared out so that many groups do.

A group teaches if its trajectories differ: at least one succeeds, and at least one fails. For a task with
success rate p and n independent trajectories the chance of that is its coverage

    C(p, n) = 1 - p^n - (1 - p)^n

which is 0 for tasks that are always or never solved. Where p is known as a Beta distribution with parameters
a and b, its expectation is closed, because E[p^n] = B(a + n, b) / B(a, b) = prod_{i<n} (a + i) / (a + b + i).
"""

import heapq
from collections.abc import Sequence
from math import prod

Belief = tuple[float, float]
"""The parameters of a Beta distribution over a success rate: for successes, and for failures."""


def coverage(success_rate: float, size: int) -> float:
    """Return the chance, 0 to 1, that `size` trajectories neither all succeed nor all fail."""
    failure_rate = 1 - success_rate
    return max(0.0, 1 - success_rate**size - failure_rate**size)


def expected_coverage(belief: Belief, size: int) -> float:
    """Return the expectation of the coverage where the success rate is known as `belief`."""
    a, b = belief
    all_succeed = prod((a + i) / (a + b + i) for i in range(size))
    all_fail = prod((b + i) / (a + b + i) for i in range(size))
    return max(0.0, 1 - all_succeed - all_fail)


def expected_variance(belief: Belief) -> float:
    """Return the expectation of 4 p (1 - p), 0 to 1."""
    a, b = belief
    return 4 * a * b / ((a + b) * (a + b + 1))


def failure_rate(belief: Belief) -> float:
    """Return the expected share of failures, 0 to 1."""
    a, b = belief
    return b / (a + b)


def share_out(beliefs: Sequence[Belief], budget: int, least: int, most: int) -> list[int]:
    """Return how many trajectories each task gets: `least` to `most`, `budget` in all if `most` allows.

    Each next trajectory goes where it adds most expected coverage, weighed by how often the task is failed,
    so that of two tasks with equal coverage the harder one gets more. Coverage grows ever more slowly with
    the size of a group; so the greedy way is the best one.
    """
    sizes = [least] * len(beliefs)
    gains = [(-_gain(belief, least), place) for place, belief in enumerate(beliefs)] if least < most else []
    heapq.heapify(gains)
    for _ in range(budget - sum(sizes)):
        if not gains:
            break
        _, place = heapq.heappop(gains)
        sizes[place] += 1
        if sizes[place] < most:
            heapq.heappush(gains, (-_gain(beliefs[place], sizes[place]), place))
    return sizes


def _gain(belief: Belief, size: int) -> float:
    """Return what one more trajectory is worth to a group of `size`."""
    more = expected_coverage(belief, size + 1) - expected_coverage(belief, size)
    return failure_rate(belief) * more
