"""The gym keeps the rules of gyms, and its tasks are what they should be."""

import random

import pytest
from agentrl_lending import Lending

from agentrl import UsageError
from agentrl_browser import find_executable
from agentrl_normcore.testing import check_gym


def test_the_gym_keeps_the_rules_of_gyms() -> None:
    try:
        find_executable()
    except UsageError as missing:
        pytest.skip(str(missing))
    check_gym("lending", tasks=1)


def test_what_is_out_is_to_be_said_and_not_taken_back() -> None:
    problems = [Lending().pose(random.Random(seed), 2) for seed in range(200)]
    out = [problem for problem in problems if problem.facts["out"]]
    assert 30 < len(out) < 90
    assert {problem.specification.ending for problem in out} == {"report_infeasible"}
    assert not any(problem.specification.required for problem in out)
