"""A run that tries its memory out goes on to the same bits; one that has too little says what helps."""

import json
import resource
import subprocess
from pathlib import Path

import pytest

from whole_runs import command, finish, metrics, recorded, resume, weights

pytest.importorskip("torch", reason="training needs torch")

SMALLER = {"steps": 2, "group_size": 2, "evaluation.tasks": 2}


@pytest.mark.parametrize("algo", ["grpo", pytest.param("ppo", marks=pytest.mark.slow)])
def test_a_probe_changes_no_bit_of_a_run(tmp_path: Path, algo: str) -> None:
    finish(command(tmp_path / "without", algorithm=algo, **SMALLER))
    probed = finish(command(tmp_path / "with", algorithm=algo, probe="true", **SMALLER))
    assert "probe: memory for episodes of" in probed.stdout
    assert "an update of" in probed.stderr
    assert "trainer.micro_batch_tokens=" in probed.stderr
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    assert weights(tmp_path / "with") == weights(tmp_path / "without")


def test_a_run_tells_how_busy_its_parts_were(tmp_path: Path) -> None:
    slow = {"hooks.chaos.delay": 0.05}
    printed = finish(command(tmp_path / "run", **SMALLER, **slow)).stdout
    assert "busy: engine " in printed
    for row in recorded(tmp_path / "run"):
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
    much = {**SMALLER, "probe": "true", "trainer.micro_batch_tokens": 400_000, "group_size": 1024}
    words = command(folder, **much)
    refused = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=starve)
    assert refused.returncode == 1
    assert "there is not enough memory for an update of the longest episodes" in refused.stderr
    assert "trainer.micro_batch_tokens" in refused.stderr
    assert "episodes of 384 tokens: if they never get that long, episode_tokens says so" in refused.stderr
    assert "Traceback" not in refused.stderr
    less = {"trainer.micro_batch_tokens": 8192, "probe": "false", "steps": 0}
    resume(folder, **less)
    assert (folder / "summary.json").exists()
