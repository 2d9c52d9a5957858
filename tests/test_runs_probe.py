"""A run that tries its memory out goes on to the same bits; one that has too little says what helps."""

import json
import resource
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs torch")

CLOCKED = {"time", "busy", "memory"}
SMALL = {"tasks_per_step": 2, "group_size": 2, "evaluation.tasks": 2, "threads": 1}


def command(folder: Path, algo: str = "grpo", **settings: Any) -> list[str]:
    sets = [part for key, value in {**SMALL, **settings}.items() for part in ("--set", f"{key}={value}")]
    run = ["run", "--env", "deepsearch", "--algo", algo, "--steps", "2", "--out", str(folder)]
    return [sys.executable, "-m", "agentrl", *run, *sets]


def finish(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def metrics(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key.partition("/")[0] not in CLOCKED} for row in rows]


def weights(folder: Path) -> str:
    return sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("algo", ["grpo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_probe_changes_no_bit_of_a_run(tmp_path: Path, algo: str) -> None:
    finish(command(tmp_path / "without", algo))
    printed = finish(command(tmp_path / "with", algo, probe="true"))
    assert "probe: memory for episodes of" in printed
    assert "an update of" in printed
    assert "trainer.micro_batch_tokens=" in printed
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    assert weights(tmp_path / "with") == weights(tmp_path / "without")


def test_a_run_tells_how_busy_its_parts_were(tmp_path: Path) -> None:
    printed = finish(command(tmp_path / "run", **{"hooks.chaos.delay": 0.05}))
    assert "busy: engine " in printed
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert 0 < row["busy/envs"] <= 1
        assert 0 < row["busy/engine"] <= 1
        assert 0 < row["busy/trainer"] <= 1
        assert row["memory/process"] > 0.01
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["busy"]) == {"engine", "envs", "trainer"}


def starve() -> None:
    """Leave this process less memory than one layer's activations of four hundred thousand tokens take."""
    resource.setrlimit(resource.RLIMIT_DATA, (3 * 2**30, 3 * 2**30))


@pytest.mark.slow
def test_a_run_with_too_little_memory_says_what_helps_and_goes_on_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    much = {"probe": "true", "trainer.micro_batch_tokens": 400_000, "group_size": 1024}
    words = command(folder, **much)
    refused = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=starve)
    assert refused.returncode == 1
    assert "there is not enough memory for an update of the longest episodes" in refused.stderr
    assert "trainer.micro_batch_tokens" in refused.stderr
    assert "episodes of 384 tokens: if they never get that long, episode_tokens says so" in refused.stderr
    assert "Traceback" not in refused.stderr
    less = [
        "--set", "trainer.micro_batch_tokens=8192", "--set", "probe=false", "--set", "steps=0",
    ]  # fmt: skip
    finish([sys.executable, "-m", "agentrl", "run", "--resume", str(folder), *less])
    assert (folder / "summary.json").exists()
