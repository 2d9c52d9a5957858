"""An environment for AppWorld that is ready to play a small world, made once for all tests."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from agentrl.hosting.elsewhere import site_of
from agentrl_appworld import AppWorld
from agentrl_appworld.inside.playground import copy_without_truth

PYTHON = os.environ.get("AGENTRL_APPWORLD_PYTHON", "")
INSIDE = Path(AppWorld.environment.worker).parent  # below the package


@pytest.fixture(scope="session")
def appworld_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder in which AppWorld is set up, with the python of AGENTRL_APPWORLD_PYTHON."""
    if not PYTHON:
        pytest.skip("AGENTRL_APPWORLD_PYTHON names no python that has appworld (see docs/appworld.md)")
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        site = site_of(AppWorld, "appworld")
    site.files.mkdir(parents=True)
    (site.folder / "venv").symlink_to(Path(PYTHON).parent.parent)
    inside = site.package / INSIDE
    subprocess.run(
        [PYTHON, "-m", "small_world", str(site.files / "small"), "--fewer", "24"],
        env={**os.environ, "PYTHONPATH": str(inside), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        capture_output=True,
    )
    copy_without_truth(site.files / "small", site.files / "small_play")
    (site.folder / "done.json").write_text(json.dumps(site.titles))
    return cache


@pytest.fixture
def appworld_files(appworld_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have AppWorld set up for this test, and return the files of its environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(appworld_cache))
    monkeypatch.delenv("APPWORLD_ROOT", raising=False)
    site = site_of(AppWorld, "appworld")
    assert site.ready
    return site.files
