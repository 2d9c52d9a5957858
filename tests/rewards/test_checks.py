"""The share of checks that passed."""

import asyncio

import pytest

from agentrl import Outcome, Task, Trajectory
from agentrl_checks import Checks


def score(outcome: Outcome, **options: str) -> float:
    return asyncio.run(Checks(Checks.Config(**options)).score(Trajectory(Task("t"), outcome=outcome)))


def test_it_is_the_share_of_the_checks_that_passed() -> None:
    assert score(Outcome(False, passed=("a",), failed=("b", "c", "d"))) == 0.25
    assert score(Outcome(True, passed=("a", "b"))) == 1.0


def test_without_checks_it_is_success() -> None:
    assert (score(Outcome(True)), score(Outcome(False))) == (1.0, 0.0)


def test_a_metric_of_the_env_can_take_its_place() -> None:
    outcome = Outcome(False, passed=("a",), metrics={"asked_fraction": 0.5})
    assert score(outcome, metric="asked_fraction") == 0.5
    with pytest.raises(ValueError, match="the env measures no 'asked'; it measures: asked_fraction"):
        score(outcome, metric="asked")
