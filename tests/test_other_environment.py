"""An env whose world needs pydantic 1 is installed, set up and trained by name, beside pydantic 2."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "other_environment"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def run(*command: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Return what the command prints."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Install the example beside this environment, set up its own, and return the variables."""
    site, cache = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("cache")
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*PIP, "install", "--quiet", *offline, "--target", str(site), str(EXAMPLE)], check=True)
    path = os.pathsep.join([str(site), *(str(Path(entry).absolute()) for entry in sys.path if entry)])
    variables = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(cache)}
    fetch = [
        *PIP,
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(cache / "wheels"),
        "pydantic>=1.10.17,<2",
    ]
    fetched = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if fetched.returncode:
        reason = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"pip can fetch no pydantic 1 here: {reason}")
    run("-m", "agentrl", "env", "setup", "forms", folder=site, environment=variables)
    return variables


def test_it_is_listed_as_ready(environment: Mapping[str, str], tmp_path: Path) -> None:
    shown = run("-m", "agentrl", "env", "status", folder=tmp_path, environment=environment)
    assert ["forms", "ready"] in [line.split()[:2] for line in shown.splitlines()]


def test_its_own_tests_pass(environment: Mapping[str, str], tmp_path: Path) -> None:
    arguments = ["-q", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE), str(EXAMPLE / "tests")]
    run("-m", "pytest", *arguments, folder=tmp_path, environment=environment)


@pytest.mark.skipif(not find_spec("torch"), reason="training needs torch")
def test_it_is_trained_by_name(environment: Mapping[str, str], tmp_path: Path) -> None:
    small = {"tasks_per_step": 2, "group_size": 2, "evaluation.tasks": 4, "threads": 1}
    options = [part for key, value in small.items() for part in ("--set", f"{key}={value}")]
    choice = ["--env", "forms", "--algo", "grpo", "--warmup", "2", "--steps", "1", "--setup", "--out", "run"]
    run("-m", "agentrl", "run", *choice, *options, folder=tmp_path, environment=environment)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert "env/attempts_left" in summary["metrics"]
