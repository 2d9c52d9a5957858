"""Whole runs of the shipped parts, small: killed and resumed, under chaos, warmed up, evaluated."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from whole_runs import agentrl, command, finish, metrics, played, resume, wait_for_steps, weights, words

pytest.importorskip("torch", reason="training needs torch")

SAVED = {"checkpoints.every": 2}


def ignore_interrupts() -> None:
    """Be started as shells start background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start_and_signal(words: list[str], folder: Path, steps: int, number: int) -> int:
    """Send a signal once so many steps are recorded, and return the exit code."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, preexec_fn=ignore_interrupts, **quiet) as process:
        wait_for_steps(process, folder, steps)
        process.send_signal(number)
        return process.wait()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "calm"
    printed = finish(command(folder, steps=5, **SAVED)).stdout
    assert "before" in printed
    assert "after" in printed
    return folder


@pytest.mark.parametrize("step", [*(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2)), 3])
def test_a_killed_run_resumes_to_the_same_numbers_and_weights(calm: Path, tmp_path: Path, step: int) -> None:
    folder = tmp_path / "killed"
    code = start_and_signal(command(folder, steps=5, **SAVED), folder, step, signal.SIGKILL)
    assert code == -signal.SIGKILL
    resume(folder)
    assert metrics(folder) == metrics(calm)
    assert weights(folder) == weights(calm)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_saves_what_is_recorded_and_exits_with_130(
    calm: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "stopped"
    code = start_and_signal(command(folder, steps=5, **SAVED), folder, 1, number)
    assert code == 130
    saved = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert saved[-1] == f"step-{len(metrics(folder)):06d}"
    resume(folder)
    assert metrics(folder) == metrics(calm)
    assert weights(folder) == weights(calm)


# A run one of whose env workers is killed when it has answered for the third time in the second update.
KILLING_A_WORKER = """
import os, signal, sys
from itertools import count
from pathlib import Path
from agentrl.cli import main
from agentrl.hosting.worker_env import WorkerEnv

step, counted, record = WorkerEnv.step, count(1), Path(sys.argv[1])

async def step_and_kill(self, action):
    answer = await step(self, action)
    if record.exists() and next(counted) == 3:
        os.kill(self.pid, signal.SIGKILL)
    return answer

WorkerEnv.step = step_and_kill
main(sys.argv[2:])
"""


def test_a_run_whose_env_worker_is_killed_loses_one_episode_and_nothing_else(
    calm: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "hit"
    line = words(folder, steps=3, **{"simulator.workers": 2})
    finish([sys.executable, "-c", KILLING_A_WORKER, str(folder / "metrics.jsonl"), *line])
    rows = metrics(folder)
    assert [row["failed"] for row in rows] == [0, 1 / 8, 0]
    names = ("reward", "tokens", "trainer/loss", "trainer/grad_norm")
    # Who is computed beside whom depends on when workers answer, and with it the last digits.
    before, after = ([row[0][name] for name in names] for row in (rows, metrics(calm)))
    assert before == pytest.approx(after, abs=1e-4)
    pairs = list(zip(played(folder, 2), played(calm, 2), strict=True))
    (lost,) = (hit for hit, _ in pairs if hit["stop"] == "error")
    assert "was killed by SIGKILL" in lost["error"]
    for hit, whole in pairs:
        assert hit["seed"] == whole["seed"]
        assert hit is lost or hit["turns"] == whole["turns"]
    assert rows[1]["reward"] == pytest.approx(mean(hit["reward"] for hit, _ in pairs if hit is not lost))


# All that PPO must not lose: critic, optimizers, the critic's warm-up, a curriculum that learns.
PPO = {
    **SAVED,
    "algorithm": "ppo",
    "trainer.minibatches": 2,
    "trainer.epochs": 2,
    "trainer.critic.warmup_updates": 2,
    "trainer.critic.warmup_until": 1,
    "curriculum": "harder_first",
    "algorithm.kl": "reward",
    "algorithm.kl_coefficient": 0.01,
}


@pytest.fixture(scope="module")
def calm_ppo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    finish(command(folder, steps=5, **PPO))
    return folder


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_killed_run_of_ppo_resumes_to_the_same_numbers_and_weights(
    calm_ppo: Path, tmp_path: Path, step: int
) -> None:
    folder = tmp_path / "killed"
    code = start_and_signal(command(folder, steps=5, **PPO), folder, step, signal.SIGKILL)
    assert code == -signal.SIGKILL
    resume(folder)
    assert metrics(folder) == metrics(calm_ppo)
    assert weights(folder) == weights(calm_ppo)


def test_a_run_survives_an_env_that_crashes_hangs_and_returns_garbage(tmp_path: Path) -> None:
    folder = tmp_path / "chaos"
    broken = {"hooks.chaos.crash": 0.1, "hooks.chaos.hang": 0.05, "hooks.chaos.garbage": 0.05}
    times = {"simulator.step_timeout": 0.5, "simulator.reset_timeout": 0.5}
    finish(command(folder, steps=3, **SAVED, **broken, **times))
    failed = [row["failed"] for row in metrics(folder)]
    assert len(failed) == 3
    assert max(failed) > 0


def test_a_warmed_up_run_compares_with_the_model_as_it_came(tmp_path: Path) -> None:
    folder = tmp_path / "warm"
    finish(command(folder, steps=1, warmup=2, **SAVED))
    evaluations = [
        json.loads(line)["step"] for line in (folder / "evaluations.jsonl").read_text().splitlines()
    ]
    assert evaluations == [-1, 0, 1]


def test_a_trained_model_is_evaluated_on_the_test_split(calm: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = ["eval", str(calm), "--split", "test", "--tasks", "3", "--repeats", "2", "--out", str(report)]
    printed = finish(agentrl(*words)).stdout
    measured = json.loads(report.read_text())["metrics"]
    assert {"success", "pass@1", "pass@2", "pass^2"} <= set(measured)
    assert "success" in printed


def test_repeats_without_chance_are_warned_of(calm: Path) -> None:
    words = ["eval", str(calm), "--tasks", "1", "--repeats", "2", "--temperature", "0"]
    warned = finish(agentrl(*words)).stderr
    assert "at temperature 0 the 2 episodes of a task differ by the env's chance only" in warned


def test_a_second_run_in_the_same_directory_is_refused(calm: Path) -> None:
    done = subprocess.run(command(calm, **SAVED), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reference_and_the_model_s_own_text_fit_a_real_run(tmp_path: Path) -> None:
    """With a KL penalty the trainer keeps a reference; the run directory holds readable trajectories."""
    folder = tmp_path / "reference"
    penalty = {"algorithm.kl": "k2", "algorithm.kl_coefficient": 0.01}
    finish(command(folder, steps=2, **SAVED, **penalty))
    assert all("policy/kl" in row for row in metrics(folder))
    assert os.listdir(folder / "trajectories")


def test_a_killed_run_with_refills_and_an_adaptive_curriculum_resumes_identically(tmp_path: Path) -> None:
    settings = {
        **SAVED,
        "steps": 5,
        "algorithm": "dapo",
        "refills": 2,
        "curriculum": "harder_first",
        "curriculum.adapt_group_size": True,
        "curriculum.pool": 6,
        "evaluation.every": 2,
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(command(whole, **settings))
    start_and_signal(command(killed, **settings), killed, 3, signal.SIGKILL)
    resume(killed)
    assert metrics(killed) == metrics(whole)
    assert weights(killed) == weights(whole)
    record = "tasks.jsonl"
    assert (killed / record).read_text() == (whole / record).read_text()
    played = [json.loads(line) for line in (whole / record).read_text().splitlines()]
    assert len(played) == sum(row["groups/played"] for row in metrics(whole))
    assert "most played tasks" in finish(agentrl("tasks", str(whole))).stdout
