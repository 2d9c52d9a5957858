"""The conformance kit reaches pytest users as fixtures, at no cost to their other tests."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

PLUGIN = "agentrl.testing.pytest_plugin"
TESTS = """
import sys
from agentrl import Reward


class Verdict(Reward):
    async def score(self, trajectory):
        return float(trajectory.outcome.success)


class Broken(Reward):
    async def score(self, trajectory):
        return trajectory.turns[0]


def test_nothing_is_imported_before_it_is_asked_for():
    assert not {"torch", "agentrl.testing.rules"} & set(sys.modules)


def test_good(check_reward):
    check_reward(Verdict)


def test_bad(check_reward):
    check_reward(Broken)


def test_all_are_there(
    check_env, check_agent, check_algorithm, check_curriculum, check_engine, check_hook, scripted_engine
):
    assert scripted_engine(["hello"]).context_length
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what pytest says to a user's tests."""
    folder: Path = tmp_path_factory.mktemp("user")
    (folder / "test_user.py").write_text(TESTS)
    known = any(entry_point.value == PLUGIN for entry_point in entry_points(group="pytest11"))
    command = [sys.executable, "-m", "pytest", *([] if known else ["-p", PLUGIN]), "-p", "no:cacheprovider"]
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_checks_are_fixtures(output: str) -> None:
    assert "1 failed, 3 passed" in output


def test_a_failure_shows_the_rules_and_not_the_kit(output: str) -> None:
    assert "Broken breaks" in output
    assert "def judge_by" not in output
