"""Whole runs whose trainer has ranks: audited, killed, interrupted, resumed, compared with one process."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from whole_runs import command, finish, metrics, resume, wait_for_steps, weights

pytest.importorskip("torch", reason="training needs torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the ranks of a run in /proc"),
]

TRAINERS = [
    {"trainer.ranks": 2},
    {"trainer": "deepspeed", "trainer.ranks": 2, "trainer.stage": 3},
]
NAMES = ["fsdp", "zero-3"]
every_trainer = pytest.mark.parametrize("trainer", TRAINERS, ids=NAMES)
PPO = {
    "algorithm": "ppo",
    "checkpoints.every": 1,
    "warmup": 2,
    "simulator.max_turns": 2,
    "simulator.max_new_tokens": 64,
    "algorithm.kl": "reward",
    "algorithm.kl_coefficient": 0.01,
    "trainer.critic.warmup_updates": 0,
}


@dataclass(frozen=True)
class Calm:
    """A run of three steps that has ended, and what its trainer was."""

    trainer: dict[str, Any]
    folder: Path


def ppo(folder: Path, steps: int, trainer: dict[str, Any]) -> list[str]:
    """Return the command for a run, where there is what its trainer needs."""
    if trainer.get("trainer") == "deepspeed" and not find_spec("deepspeed"):
        pytest.skip("install agentrl's extra 'deepspeed'")
    return command(folder, steps=steps, **PPO, **trainer)


def ranks_of(run: int) -> list[int]:
    """Return the numbers of the processes that train for a run, the first rank first."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1]
            words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(parent) == run and b"agentrl_torch.rank" in words:
            found.append(int(entry))
    return sorted(found)


def interfere(
    words: list[str], folder: Path, steps: int, act: Callable[[int, list[int]], None]
) -> tuple[int, str]:
    """Do something to a run and its ranks after so many steps; return its exit code and what it said."""
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:
        wait_for_steps(process, folder, steps)
        ranks = ranks_of(process.pid)
        assert len(ranks) == 2
        act(process.pid, ranks)
        _, said = process.communicate()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{rank}").exists() for rank in ranks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    return process.returncode, said


@pytest.fixture(scope="module", params=TRAINERS, ids=NAMES)
def calm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """Return a run that nobody interferes with."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    finish(ppo(folder, 3, request.param))
    return Calm(request.param, folder)


@pytest.mark.timeout(900)
def test_runs_with_ranks_keep_the_audit_and_resume_to_the_bit(tmp_path: Path, calm: Calm) -> None:
    trainer, whole, killed = calm.trainer, calm.folder, tmp_path / "killed"
    assert max(row["audit/max_logprob_difference"] for row in metrics(whole)) < 1e-3
    code, _ = interfere(ppo(killed, 3, trainer), killed, 1, lambda run, _: os.kill(run, signal.SIGKILL))
    assert code == -signal.SIGKILL
    resume(killed)
    assert metrics(killed) == metrics(whole)
    assert weights(killed) == weights(whole)


@pytest.mark.timeout(900)
def test_a_run_whose_rank_is_killed_says_so_in_one_sentence_and_resumes_to_the_bit(
    tmp_path: Path, calm: Calm
) -> None:
    folder = tmp_path / "run"
    line = ppo(folder, 3, calm.trainer)
    code, said = interfere(line, folder, 1, lambda _, ranks: os.kill(ranks[1], signal.SIGKILL))
    assert code == 1
    assert "rank 1 was killed by signal 9; --resume goes on from the last checkpoint" in " ".join(
        said.split()
    )
    assert "Traceback" not in said
    resume(folder)
    assert metrics(folder) == metrics(calm.folder)
    assert weights(folder) == weights(calm.folder)


@pytest.mark.timeout(900)
@every_trainer
def test_ctrl_c_reaches_a_run_with_all_its_ranks_and_leaves_none(
    tmp_path: Path, trainer: dict[str, Any]
) -> None:
    folder = tmp_path / "run"

    def press(run: int, ranks: list[int]) -> None:
        for number in (run, *ranks):  # as a terminal does
            os.kill(number, signal.SIGINT)

    code, _ = interfere(ppo(folder, 3, trainer), folder, 1, press)
    assert code == 130
    saved = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert saved[-1] == f"step-{len(metrics(folder)):06d}"


@pytest.mark.timeout(900)
def test_a_run_with_ranks_learns_what_one_in_one_process_learns(tmp_path: Path) -> None:
    found = []
    for ranks in (1, 2):
        folder = tmp_path / f"{ranks}"
        finish(ppo(folder, 2, {"trainer.ranks": ranks}))
        found.append(metrics(folder)[0])
    names = ["trainer/loss", "trainer/grad_norm", "critic/grad_norm", "policy/entropy", "policy/kl_old"]
    assert [found[1][n] for n in names] == pytest.approx([found[0][n] for n in names], rel=1e-3, abs=1e-6)
