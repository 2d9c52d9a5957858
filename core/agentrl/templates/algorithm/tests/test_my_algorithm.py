"""The algorithm keeps the rules of algorithms, and gives credit as it says."""

import pytest
from agentrl import Batch, Group, Task
from agentrl.testing import check_algorithm, make_trajectory

from agentrl_my_algorithm import MyAlgorithm


@pytest.mark.parametrize("shrink", [0.0, 0.5])
def test_it_keeps_the_rules_of_algorithms(shrink: float) -> None:
    """Look at its credit, and, where torch is installed, at its loss and at whether it learns."""
    config = MyAlgorithm.Config(shrink=shrink)
    check_algorithm(lambda: MyAlgorithm(config))


def test_what_went_better_than_usual_gets_a_positive_advantage() -> None:
    """Compare two trajectories of one task, each of five sampled tokens."""
    group = Group(Task("task"), [make_trajectory(reward=1.0), make_trajectory(reward=0.0)])
    better, worse = MyAlgorithm().credit(Batch([group]))[0]
    assert (list(better.advantages), list(worse.advantages)) == ([0.5] * 5, [-0.5] * 5)
