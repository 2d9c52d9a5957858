"""The judge on agentrl's own OpenAI-compatible endpoint, which serves the model of the run."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentrl import Action, Engine, Env, Observation, Outcome, Task, Trajectory
from agentrl.config import SimulatorConfig
from agentrl.hooks import Hooks
from agentrl.hosting.pool import InProcessPool
from agentrl.interfaces import Resources
from agentrl.plugins import make
from agentrl.simulator import Simulator
from agentrl.testing import ScriptedEngine

pytest.importorskip("aiohttp", reason="install agentrl's extra 'endpoint'")

# A program that has the model it plays with judge a trajectory, and does what comes of it.
PROGRAM = """
import os
from agentrl import Unjudged
from agentrl.plugins import make
from agentrl.testing import make_trajectory

async def play(observation, episode):
    os.environ["KEY_OF_THE_EPISODE"] = episode.api_key
    judge = make("reward", "llm_judge", {
        "endpoint": episode.base_url, "model": episode.model, "key_variable": "KEY_OF_THE_EPISODE",
        "cache": os.environ["CACHE_OF_THE_TEST"], "max_tokens": 40, "more": {"temperature": None},
    })
    await judge.start(None)
    try:
        return str(await judge.score(make_trajectory()))
    except Unjudged as cause:
        return f"unjudged: {cause}"
    finally:
        await judge.close()
"""


class Once(Env):
    """Takes one action."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [Task("once", split)]

    async def reset(self, task: Task, seed: int) -> Observation:
        return Observation("Judge.")

    async def step(self, action: Action) -> Observation:
        return Observation("", done=True)

    async def judge(self) -> Outcome:
        return Outcome(success=True)


def judged_by(engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trajectory:
    (folder / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("CACHE_OF_THE_TEST", str(folder / "cache"))
    monkeypatch.setitem(os.environ, "KEY_OF_THE_EPISODE", "")
    agent = make("agent", "endpoint", {"program": f"{folder}/program.py:play"})

    async def play() -> Trajectory:
        await engine.start(make("model", "tiny").path(), Resources(threads=1))
        hooks, limits = Hooks(installed=False), SimulatorConfig()
        simulator = Simulator(
            InProcessPool(Once, size=1), lambda: type(agent)(agent.config), engine, limits, hooks, print
        )
        (group,) = await simulator.play([Task("once")], 1, seed=3)
        await engine.close()
        return group.trajectories[0]

    return asyncio.run(play())


def test_what_the_model_of_the_endpoint_says_is_the_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trajectory = judged_by(ScriptedEngine(["It is Paris.\nSCORE: 8"]), tmp_path, monkeypatch)
    assert trajectory.error is None
    assert trajectory.turns[0].action.text == "0.8"
    assert list((tmp_path / "cache").rglob("*.json"))


def test_a_model_that_cannot_judge_leaves_the_trajectory_unjudged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="the built-in model needs torch")
    trajectory = judged_by(make("engine", "torch"), tmp_path, monkeypatch)
    assert trajectory.error is None
    assert trajectory.turns[0].action.text.startswith(
        "unjudged: the judge's reply has no line 'SCORE: number'"
    )
    assert trajectory.sampled > 0
    assert not list((tmp_path / "cache").rglob("*.json"))
