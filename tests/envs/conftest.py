"""An environment for AppWorld that is ready to play a small world, made once for all tests."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrl.hosting.elsewhere import site_of
from agentrl_appworld import AppWorld
from agentrl_appworld.inside import playground

PYTHON = os.environ.get("AGENTRL_APPWORLD_PYTHON", "")
INSIDE = Path(playground.__file__).parent


def _run(*arguments: object) -> str:
    done = subprocess.run(
        [PYTHON, *map(str, arguments)],
        env=_surroundings(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def _surroundings() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(INSIDE), "PYTHONDONTWRITEBYTECODE": "1"}


class SmallWorld:
    """A small world, and the copy of it that is played in, by AppWorld's own interpreter."""

    def __init__(self, files: Path) -> None:
        self.truth, self.play_root = files / "small", files / "small_play"
        self._trials: dict[str, subprocess.Popen[str]] = {}

    @staticmethod
    def run(*arguments: object) -> str:
        """Run AppWorld's python and return what it prints."""
        return _run(*arguments)

    @staticmethod
    def fence(code: str) -> str:
        """Return what an agent says that wants this code run."""
        return f"Let me see.\n```python\n{code}\n```"

    @staticmethod
    def job(task: str, *said: str, seed: int = 1, **more: Any) -> dict[str, Any]:
        """Return an episode to be played: its task, and all that is said in it."""
        return {"task": task, "seed": seed, "said": list(said), **more}

    def known(self, task: str, name: str) -> Any:
        """Return what the ground truth of a task has under a name."""
        path = self.truth / "data" / "tasks" / task / "ground_truth" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8"))

    def ids(self, split: str) -> list[str]:
        """Return the tasks of a split."""
        return (self.truth / "data" / "datasets" / f"{split}.txt").read_text(encoding="utf-8").split()

    def play(self, jobs: Sequence[Mapping[str, Any]], parallel: int = 2) -> list[dict[str, Any]]:
        """Play episodes, none of which may crash."""
        return _calm(self.attempt("play", self.play_root, jobs, parallel))

    def judge(self, jobs: Sequence[Mapping[str, Any]], parallel: int = 2) -> list[dict[str, Any]]:
        """Judge records of episodes, which all must be possible."""
        return _calm(self.attempt("judge", self.truth, jobs, parallel))

    def play_and_judge(self, jobs: Sequence[dict[str, Any]], parallel: int = 2) -> list[dict[str, Any]]:
        """Return the outcomes of episodes."""
        played = self.play(jobs, parallel)
        records = [{**job, "records": each["records"]} for job, each in zip(jobs, played, strict=True)]
        return self.judge(records, parallel)

    def attempt(
        self, what: str, root: Path, jobs: Sequence[Mapping[str, Any]], parallel: int = 2
    ) -> list[dict[str, Any]]:
        """Play or judge; what crashed is told as {"crash": text}."""
        if what not in self._trials:
            # Importing AppWorld takes several seconds.
            self._trials[what] = subprocess.Popen(
                [PYTHON, "-m", "trial", what, str(root)],
                env=_surroundings(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        trial = self._trials[what]
        assert trial.stdin is not None
        assert trial.stdout is not None
        print(json.dumps({"jobs": jobs, "parallel": parallel}), file=trial.stdin, flush=True)
        answer = trial.stdout.readline()
        assert answer, f"{what} ended with {trial.wait()}"
        results: list[dict[str, Any]] = json.loads(answer)
        return results

    def close(self) -> None:
        """End what plays and judges."""
        for trial in self._trials.values():
            trial.kill()
            trial.wait()


def _calm(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert not [result["crash"] for result in results if "crash" in result]
    return results


@pytest.fixture(scope="session")
def small_world(appworld_cache: Path) -> Iterator[SmallWorld]:
    """Yield a small world with a few tasks of every kind."""
    (files,) = appworld_cache.glob("agentrl/environments/*/files")
    world = SmallWorld(files)
    yield world
    world.close()


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
    _run("-m", "small_world", site.files / "small", "--fewer", 24)
    playground.copy_without_truth(site.files / "small", site.files / "small_play")
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
