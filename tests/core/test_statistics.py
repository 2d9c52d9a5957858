"""Intervals against textbook values, pass@k against counting."""

import math
from itertools import combinations

import pytest

from agentrl import Action, Group, Observation, Outcome, Task, Trajectory, Turn
from agentrl.evaluation import summarize
from agentrl.statistics import estimate, pass_at_k, pass_hat_k


def test_proportions_get_wilsons_interval() -> None:
    found = estimate([[1.0]] * 8 + [[0.0]] * 2, proportion=True)
    assert (found.mean, found.count) == (0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_a_perfect_score_still_has_a_width() -> None:
    found = estimate([[1.0]] * 20, proportion=True)
    assert found.high == pytest.approx(1.0)
    assert 0.8 < found.low < 0.9


def test_tasks_not_trajectories_are_the_unit() -> None:
    found = estimate([[1.0, 0.0], [0.5], []])
    assert (found.mean, found.low, found.high, found.count) == (0.5, 0.5, 0.5, 2)


def test_counts_get_no_interval_of_proportions() -> None:
    found = estimate([[1.0]] * 20)
    assert (found.low, found.high) == (1.0, 1.0)


def test_repeated_proportions_stay_between_0_and_1() -> None:
    per_task = [[1.0, 1.0]] * 9 + [[1.0, 0.0]]
    assert estimate(per_task).high > 1
    found = estimate(per_task, proportion=True)
    assert (found.mean, found.high) == (0.95, 1.0)
    assert 0 < found.low < 0.95


def test_an_evaluation_tells_proportions_from_counts() -> None:
    done = Trajectory(Task("t"), outcome=Outcome(True), turns=[Turn(Observation("?"), Action("!"))])
    metrics = summarize([Group(done.task, [done])] * 100, "dev").metrics
    assert (metrics["turns"].low, metrics["turns"].high) == (1.0, 1.0)
    assert metrics["success"].low == pytest.approx(0.963, abs=1e-3)


def test_nothing_measured_is_not_a_number() -> None:
    assert math.isnan(estimate([[]]).mean)


@pytest.mark.parametrize(("attempts", "successes", "k"), [(4, 1, 2), (5, 3, 2), (6, 6, 3), (3, 0, 1)])
def test_pass_at_k_and_pass_hat_k_count_the_draws(attempts: int, successes: int, k: int) -> None:
    draws = list(combinations([True] * successes + [False] * (attempts - successes), k))
    assert pass_at_k(attempts, successes, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert pass_hat_k(attempts, successes, k) == pytest.approx(sum(map(all, draws)) / len(draws))
