"""Whole runs in processes of their own, small: how they are started and waited for, and what they leave."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

SMALL = {"tasks_per_step": 2, "group_size": 4, "evaluation.tasks": 4, "threads": 1}
# Metrics whose numbers depend on the clock and the machine.
CLOCKED = ("time/", "busy/", "memory/")


def agentrl(*words: str) -> list[str]:
    """Return the command `agentrl` with these words."""
    return [sys.executable, "-m", "agentrl", *words]


def words(folder: Path, **sets: Any) -> list[str]:
    """Return the words for a small run in `folder` that differs from others by its settings."""
    return ["run", "--env", "deepsearch", "--out", str(folder), *settings({**SMALL, **sets})]


def command(folder: Path, **sets: Any) -> list[str]:
    """Return the command for such a run."""
    return agentrl(*words(folder, **sets))


def settings(sets: Mapping[str, Any]) -> list[str]:
    """Return the words for settings."""
    return [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]


def finish(line: list[str]) -> subprocess.CompletedProcess[str]:
    """See a command through that is to succeed, and return what it said."""
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def train_here(folder: Path, **sets: Any) -> None:
    """See such a run through in this process, where a test can reach into it."""
    from agentrl.config import resolve
    from agentrl.display import Display
    from agentrl.run import train

    train(resolve({"env": "deepsearch", **SMALL, **sets}), folder, False, Display())


def resume(folder: Path, **sets: Any) -> subprocess.CompletedProcess[str]:
    """See the run in `folder` through from its last checkpoint."""
    return finish(agentrl("run", "--resume", str(folder), *settings(sets)))


def wait_for_steps(process: subprocess.Popen[Any], folder: Path, steps: int) -> None:
    """Wait until a run has recorded so many steps, or has ended."""
    record = folder / "metrics.jsonl"
    while process.poll() is None and not (record.exists() and record.read_text().count("\n") >= steps):
        time.sleep(0.01)


def recorded(folder: Path) -> list[dict[str, Any]]:
    """Return all that a run has recorded of each step."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of each step that do not depend on the clock."""
    return [{key: row[key] for key in row if not key.startswith(CLOCKED)} for row in recorded(folder)]


def played(folder: Path, step: int) -> list[dict[str, Any]]:
    """Return the trajectories of a step."""
    record = gzip.decompress((folder / "trajectories" / f"step-{step:06d}.jsonl.gz").read_bytes())
    return [json.loads(line) for line in record.splitlines()]


def weights(folder: Path) -> str:
    """Return a hash of what a run has trained."""
    return sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()
