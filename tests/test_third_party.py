"""Strangers' distributions are installed as pip installs them, and everything works by name."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Install the example of a game, and return the variables under which it is found."""
    return install("third_party", tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def with_gym(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Install the example of a gym, and return the variables under which it is found."""
    return install("gym", tmp_path_factory.mktemp("site"))


def install(example: str, folder: Path) -> Mapping[str, str]:
    """Install an example into a folder beside this environment; return the variables that let it be found."""
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(folder)]
    subprocess.run([*pip, str(EXAMPLES / example)], check=True)
    path = os.pathsep.join([str(folder), *(str(Path(entry).absolute()) for entry in sys.path if entry)])
    return {**os.environ, "PYTHONPATH": path}


def agentrl(*arguments: str, environment: Mapping[str, str], folder: Path, typed: str = "") -> str:
    """Return what the command prints."""
    return python("agentrl", *arguments, environment=environment, folder=folder, typed=typed)


def python(*arguments: str, environment: Mapping[str, str], folder: Path, typed: str = "") -> str:
    """Return what a module prints."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_tests_of(example: str, environment: Mapping[str, str], folder: Path) -> str:
    """Run the example's own tests; return what they print."""
    root = EXAMPLES / example
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(root), str(root / "tests")]
    return python("pytest", *options, environment=environment, folder=folder)


def test_its_plugins_are_listed_with_the_distribution_they_come_from(
    installed: Mapping[str, str], tmp_path: Path
) -> None:
    listed = agentrl("plugins", environment=installed, folder=tmp_path)
    rows = [line.split()[:4] for line in listed.splitlines()]
    assert ["env", "countdown", "agentrl-countdown", "0.1.0"] in rows
    assert ["reward", "partial_credit", "agentrl-countdown", "0.1.0"] in rows
    assert ["algorithm", "branch_credit", "agentrl-countdown", "0.1.0"] in rows


def test_its_own_tests_pass(installed: Mapping[str, str], tmp_path: Path) -> None:
    run_tests_of("third_party", installed, tmp_path)


@pytest.mark.skipif(not find_spec("torch"), reason="training needs torch")
def test_it_is_trained_by_name(installed: Mapping[str, str], tmp_path: Path) -> None:
    small = {
        "env.length": 2,
        "env.dev": 10,
        "tasks_per_step": 2,
        "group_size": 2,
        "evaluation.tasks": 4,
        "threads": 1,
    }
    options = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    choice = ["--env", "countdown", "--algo", "grpo", "--reward", "partial_credit", "--reward", "success:0"]
    length = ["--warmup", "2", "--steps", "1", "--out", "run"]
    agentrl("run", *choice, *length, *options, environment=installed, folder=tmp_path)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {"partial_credit", "success"} <= set(summary["metrics"])


@pytest.mark.skipif(not find_spec("torch"), reason="training needs torch")
def test_its_algorithm_trains_a_shipped_env_by_name(installed: Mapping[str, str], tmp_path: Path) -> None:
    small = {"tasks_per_step": 2, "group_size": 4, "evaluation.tasks": 4, "threads": 1}
    options = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    choice = ["--env", "deepsearch", "--algo", "branch_credit", "--steps", "2", "--out", "run"]
    agentrl("run", *choice, *options, environment=installed, folder=tmp_path)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(step["trainer/grad_norm"] > 0 for step in steps)


@pytest.mark.skipif(not find_spec("torch"), reason="training needs torch")
def test_it_is_trained_in_worker_processes_that_chaos_breaks(
    installed: Mapping[str, str], tmp_path: Path
) -> None:
    small = {
        "env.length": 2,
        "env.dev": 10,
        "tasks_per_step": 2,
        "group_size": 4,
        "evaluation.tasks": 8,
        "simulator.workers": 2,
        "simulator.step_timeout": 0.5,
        "simulator.reset_timeout": 1.0,
        "hooks.chaos.crash": 0.1,
        "hooks.chaos.garbage": 0.05,
        "hooks.chaos.hang": 0.05,
        "threads": 1,
    }
    options = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    choice = ["--env", "countdown", "--algo", "grpo", "--steps", "2", "--out", "run"]
    agentrl("run", *choice, *options, environment=installed, folder=tmp_path)
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
    assert sum(step["failed"] for step in steps) > 0


# A gym of normcore


@pytest.mark.timeout(900)
def test_a_gym_keeps_the_rules_of_gyms(with_gym: Mapping[str, str], tmp_path: Path, browser: str) -> None:
    assert "2 passed" in run_tests_of("gym", with_gym, tmp_path)


def test_a_gym_is_played_by_name(with_gym: Mapping[str, str], tmp_path: Path, browser: str) -> None:
    play = ("env", "play", "normcore", "--set", "env.gyms=[lending]", "--task", "3")
    idle = agentrl(*play, environment=with_gym, folder=tmp_path, typed="?\ndone()\n")
    goal = re.search(r"Goal: Lend to (\w+): (.+)\.", idle)
    assert goal, idle
    reader, thing = goal.groups()
    assert f"the expert says: select_option('Reader', '{reader}')" in idle
    assert "\nfailure\n" in idle
    assert f"missing: an update of a row in things (the one with name '{thing}')" in idle
    actions = f"select_option('Reader', '{reader}')\nclick('Lend {thing}')\ndone()\n"
    assert "\nsuccess\n" in agentrl(*play, environment=with_gym, folder=tmp_path, typed=actions)


def test_a_gym_is_practised_in_beside_those_that_are_shipped(
    with_gym: Mapping[str, str], tmp_path: Path
) -> None:
    code = "from agentrl_normcore.gym import gym_names; print(*gym_names())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=with_gym, cwd=tmp_path, check=True
    )
    assert done.stdout == "calendar dropdown endurance forms lending mail\n"
