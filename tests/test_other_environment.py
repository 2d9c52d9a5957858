"""An env whose world needs pydantic 1 is installed, set up and trained by name, beside pydantic 2."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from forms import EXAMPLE, install, run, set_up


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Install the example beside this environment, set up its own, and return the variables."""
    site = tmp_path_factory.mktemp("site")
    variables = install(site, tmp_path_factory.mktemp("cache"))
    set_up(site, variables)
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
