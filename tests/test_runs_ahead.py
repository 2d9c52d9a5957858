"""Whole runs that play ahead of the trainer, or cut off what is slow: how stale they get, how they go on."""

import gzip
import json
import signal
import subprocess
from pathlib import Path

import pytest

from whole_runs import command, finish, recorded, resume, wait_for_steps

pytest.importorskip("torch", reason="training needs torch")

FIVE_STEPS = {"steps": 5, "checkpoints.every": 2}


def versions(folder: Path, step: int) -> set[int]:
    """Return which weights sampled for an update."""
    with gzip.open(folder / "trajectories" / f"step-{step:06d}.jsonl.gz", "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    return {span["version"] for each in read for segment in each["segments"] for span in segment["spans"]}


@pytest.mark.parametrize("staleness", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_episodes_are_learnt_from_that_older_weights_began_and_no_older_ones_than_allowed(
    tmp_path: Path, staleness: int
) -> None:
    folder = tmp_path / "run"
    slow = {"hooks.chaos.delay": 0.02}
    printed = finish(command(folder, staleness=staleness, **FIVE_STEPS, **slow)).stdout
    assert "algorithm.correction" in printed or "correction: token" in printed
    rows = recorded(folder)
    assert len(rows) == 5
    for row in rows:
        lags = {row["step"] - 1 - version for version in versions(folder, row["step"])}
        assert max(lags) == row["staleness/max"] <= min(staleness, row["step"] - 1)
        assert min(lags) >= 0
    assert max(row["staleness/mean"] for row in rows) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_run_that_plays_ahead_can_be_stopped_and_goes_on_from_its_last_checkpoint(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "stopped"
    words = command(folder, steps=5, staleness=2, **{"hooks.chaos.delay": 0.05, "checkpoints.every": 1})
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for_steps(process, folder, 2)
        process.send_signal(number)
        assert process.wait() == (130 if number == signal.SIGINT else -number)
    before = recorded(folder)
    saved = sorted(
        path.name for path in (folder / "checkpoints").iterdir() if not path.name.endswith(".unfinished")
    )
    if number == signal.SIGINT:
        assert saved[-1] == f"step-{len(before):06d}", "the update that was under way is recorded and saved"
    resume(folder)
    assert [row["step"] for row in recorded(folder)] == [1, 2, 3, 4, 5]
    kept = int(saved[-1].removeprefix("step-"))
    assert recorded(folder)[:kept] == before[:kept]


def test_an_episode_that_takes_far_longer_than_the_others_is_cut_off_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    chaos = {"hooks.chaos.hang": 0.05, "simulator.reset_timeout": 5, "simulator.step_timeout": 5}
    finish(command(folder, group_size=8, **FIVE_STEPS, **chaos, **{"simulator.cut_off": 3}))
    rows = recorded(folder)
    assert sum(row["cut_off"] for row in rows) > 0
    assert all(row["cut_off"] <= row["failed"] for row in rows)
    with gzip.open(folder / "trajectories" / "step-000001.jsonl.gz", "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in lines]
    cut = [each for each in read if each["stop"] == "cut"]
    assert len(cut) == round(rows[0]["cut_off"] * len(read))
    assert all("3 times the median" in each["error"] and not each["rewards"] for each in cut)
