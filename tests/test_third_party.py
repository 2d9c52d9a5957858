"""A stranger's distribution is installed as pip installs it, and everything works by name."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "third_party"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Install the example beside this environment, and return the variables under which it is found."""
    folder = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(folder)]
    subprocess.run([*install, str(EXAMPLE)], check=True)
    path = os.pathsep.join([str(folder), *(str(Path(entry).absolute()) for entry in sys.path if entry)])
    return {**os.environ, "PYTHONPATH": path}


def agentrl(*arguments: str, environment: Mapping[str, str], folder: Path) -> str:
    """Return what the command prints."""
    command = [sys.executable, "-m", "agentrl", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_plugins_are_listed_with_the_distribution_they_come_from(
    installed: Mapping[str, str], tmp_path: Path
) -> None:
    listed = agentrl("plugins", environment=installed, folder=tmp_path)
    rows = [line.split()[:4] for line in listed.splitlines()]
    assert ["env", "countdown", "agentrl-countdown", "0.1.0"] in rows
    assert ["reward", "partial_credit", "agentrl-countdown", "0.1.0"] in rows
    assert ["algorithm", "branch_credit", "agentrl-countdown", "0.1.0"] in rows


def test_its_own_tests_pass(installed: Mapping[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE)]
    done = subprocess.run(
        [*command, str(EXAMPLE / "tests")],
        capture_output=True,
        text=True,
        env=installed,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


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
