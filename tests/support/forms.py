"""The example whose world needs pydantic 1, installed beside this environment as a user would."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "other_environment"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def run(*words: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Return what Python prints that is called with these words."""
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(site: Path, cache: Path) -> Mapping[str, str]:
    """Install it into `site`, and return the variables with which it is found.

    Its environment will be in `cache`. Skips the test if pip cannot fetch what that environment is made of.
    """
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*PIP, "install", "--quiet", *offline, "--target", str(site), str(EXAMPLE)], check=True)
    old = ["--quiet", "--no-deps", "--dest", str(cache / "wheels"), "pydantic>=1.10.17,<2"]
    fetched = subprocess.run([*PIP, "download", *old], capture_output=True, text=True, check=False)
    if fetched.returncode:
        reason = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"pip can fetch no pydantic 1 here: {reason}")
    path = os.pathsep.join([str(site), *(str(Path(entry).absolute()) for entry in sys.path if entry)])
    return {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(cache)}


def set_up(site: Path, environment: Mapping[str, str]) -> None:
    """Build the environment that it declares."""
    run("-m", "agentrl", "env", "setup", "forms", folder=site, environment=environment)
