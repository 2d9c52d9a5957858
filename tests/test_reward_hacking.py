"""A reward that can be had without solving the task is learnt, and the run says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs torch")

QUICK = '''
from agentrl import Reward, Trajectory


class Quick(Reward):
    """Pays for being quick, whether the answer is right or not."""

    async def score(self, trajectory: Trajectory) -> float:
        return 1 / max(1, len(trajectory.turns))
'''
SETTINGS = {
    "tasks_per_step": 8,
    "group_size": 8,
    "evaluation.tasks": 60,
    "evaluation.every": 8,
    "evaluation.audit": "[success, exact_match]",
    "threads": 1,
}


def install(site: Path) -> dict[str, str]:
    """Install a distribution with the reward `quick`, and return an environment in which it is known."""
    info = site / "quick-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "quick_reward.py").write_text(QUICK)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quick\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[agentrl.rewards]\nquick = quick_reward:Quick\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentrl", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_run_whose_reward_is_hacked_warns_of_it_and_can_be_judged_by_a_better_one(tmp_path: Path) -> None:
    environment, folder = install(tmp_path / "site"), tmp_path / "run"
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    rewards = ["--reward", "quick", "--reward", "exact_match:0"]
    words = ["run", "--env", "deepsearch", *rewards, "--steps", "16", "--out", str(folder), *sets]
    said = run(environment, *words).stderr
    for metric in ("success", "exact_match"):
        assert said.count(f"but {metric} on held-out tasks fell from") == 1
    *_, last = map(json.loads, (folder / "evaluations.jsonl").read_text().splitlines())
    assert [each["metric"] for each in last["parted"]] == ["success", "exact_match"]
    assert last["metrics"]["success"]["mean"] < last["parted"][0]["before"]["mean"] / 2

    shown = run(environment, "rescore", str(folder), "--reward", "exact_match").stdout
    assert "weighted sum" in shown
    assert "groups whose rewards differ" in shown
