"""Whole runs that play ahead of the trainer, or cut off what is slow: how stale they get, how they go on."""

import asyncio
import json
import re
import signal
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from whole_runs import command, finish, metrics, played, recorded, resume, train_here, wait_for_steps, weights

pytest.importorskip("torch", reason="training needs torch")

from agentrl.collection import Collection, Collector
from agentrl.interfaces import Weights
from agentrl.loop import Loop
from agentrl.metrics import rollout_metrics
from agentrl.types import Completion, Sampling
from agentrl_torch import TorchEngine, TorchTrainer

FIVE_STEPS = {"steps": 5, "checkpoints.every": 2}


def tokens(folder: Path, step: int) -> list[Any]:
    """Return what an update learnt from: token ids, with their log-probabilities and versions."""
    return [each["segments"] for each in played(folder, step)]


def curriculum(folder: Path, step: int) -> Any:
    """Return the curriculum that the checkpoint of an update goes on with."""
    state = folder / "checkpoints" / f"step-{step:06d}" / "state.json"
    return json.loads(state.read_text())["curriculum"]


def versions(trajectory: dict[str, Any]) -> list[int]:
    """Return which weights sampled each span."""
    return [span["version"] for segment in trajectory["segments"] for span in segment["spans"]]


@pytest.mark.parametrize("staleness", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_episodes_are_learnt_from_that_older_weights_began_and_no_older_ones_than_allowed(
    tmp_path: Path, staleness: int
) -> None:
    folder = tmp_path / "run"
    slow = {"hooks.chaos.delay": 0.02}
    finish(command(folder, staleness=staleness, **FIVE_STEPS, **slow))
    rows = recorded(folder)
    assert len(rows) == 5
    for row in rows:
        sampled_by = {version for each in played(folder, row["step"]) for version in versions(each)}
        lags = {row["step"] - 1 - version for version in sampled_by}
        assert max(lags) == row["staleness/max"] <= min(staleness, row["step"] - 1)
        assert min(lags) >= 0
    assert max(row["staleness/mean"] for row in rows) > 0


class InTurns:
    """Collects an update's groups when they are asked for, and nothing before."""

    def __init__(self, collector: Collector, staleness: int, last: int) -> None:
        self.collector = collector

    async def take(self, step: int) -> Collection:
        return await self.collector.collect(step)

    def curriculum_state(self, step: int) -> dict[str, Any]:
        return self.collector.curriculum.state()

    async def close(self) -> None: ...


async def collect_then_train(loop: Loop) -> None:
    """Do one update as the design has it: play, judge, credit, update, one after the other."""
    parts, step = loop._parts, loop.progress.step + 1
    await parts.engine.load_weights(parts.trainer.weights(), step - 1)
    collection = await loop._ahead.take(step)
    groups = collection.usable()
    batch = parts.trainer.prepare(groups, parts.algorithm.needs)
    metrics = parts.trainer.update(batch, parts.algorithm.credit(batch), parts.algorithm)
    metrics |= {f"credit/{name}": number for name, number in batch.logged.items()}
    kept = {"groups/kept": len(groups) / len(collection.played)}
    loop._record(step, collection, {**rollout_metrics(collection.played), **kept, **metrics})
    loop.save()


def test_with_a_staleness_of_0_a_run_is_the_synchronous_one_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A curriculum that learns chooses otherwise when it is asked too early.
    more = {"steps": 3, "checkpoints.every": 1, "checkpoints.keep": 3, "curriculum": "harder_first"}
    found, expected = tmp_path / "run", tmp_path / "in turns"
    train_here(found, staleness=0, **more)
    monkeypatch.setattr("agentrl.loop.Ahead", InTurns)
    monkeypatch.setattr(Loop, "step", collect_then_train)
    train_here(expected, **more)
    assert len(metrics(found)) == 3
    assert metrics(found) == metrics(expected)
    assert weights(found) == weights(expected)
    for step in (1, 2, 3):
        assert tokens(found, step) == tokens(expected, step)
        assert curriculum(found, step) == curriculum(expected, step)


def update_of(session: str) -> int | None:
    """Return for which update an episode is played; None for one that is not trained on."""
    match = re.match(r"update (\d+), ", session)
    return int(match[1]) if match else None


@dataclass
class AtOnce:
    """Two that are to be at work at the same time: an update, and an episode of the next one.

    Attributes:
        last: the update that none follows.
        patience: seconds that an update waits for the next one's episodes.
    """

    last: int
    patience: float
    learning: dict[int, asyncio.Event] = field(default_factory=dict)
    played: dict[int, threading.Event] = field(default_factory=dict)

    def arrange(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let no episode sample before the update before its own, and none of these end without one."""
        generate, update = TorchEngine.generate, TorchTrainer.update
        self.learning = {step: asyncio.Event() for step in range(1, self.last + 1)}
        self.played = {step: threading.Event() for step in range(1, self.last + 1)}
        learnt: list[int] = []

        async def generate_beside(
            engine: TorchEngine, token_ids: list[int], sampling: Sampling, session: str
        ) -> Completion:
            self.loop = asyncio.get_running_loop()
            step = update_of(session)
            if step is not None and step > 1:
                await self.learning[step - 1].wait()
            completion = await generate(engine, token_ids, sampling, session)
            if step is not None:
                self.played[step].set()
            return completion

        def update_beside(trainer: TorchTrainer, *arguments: Any) -> dict[str, float]:
            learnt.append(step := len(learnt) + 1)
            self.loop.call_soon_threadsafe(self.learning[step].set)
            if step < self.last and not self.played[step + 1].wait(self.patience):
                raise TimeoutError(f"no episode of update {step + 1} was played during update {step}")
            return update(trainer, *arguments)

        monkeypatch.setattr(TorchEngine, "generate", generate_beside)
        monkeypatch.setattr(TorchTrainer, "update", update_beside)


def test_the_next_updates_episodes_are_played_while_the_trainer_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AtOnce(last=3, patience=60).arrange(monkeypatch)
    train_here(tmp_path / "run", staleness=1, steps=3)
    assert [row["staleness/max"] for row in recorded(tmp_path / "run")] == [0, 1, 1]


def test_without_staleness_no_episode_is_played_while_the_trainer_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AtOnce(last=3, patience=1).arrange(monkeypatch)
    with pytest.raises(TimeoutError, match="no episode of update 2 was played during update 1"):
        train_here(tmp_path / "run", staleness=0, steps=3)


def second_turns_wait_for_the_next_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second update's episodes sample their first turn with the first weights, and no other."""
    generate, load_weights = TorchEngine.generate, TorchEngine.load_weights
    begun, loaded, sampled = asyncio.Event(), asyncio.Event(), set[str]()

    async def generate_in_two_halves(
        engine: TorchEngine, token_ids: list[int], sampling: Sampling, session: str
    ) -> Completion:
        if session in sampled:
            await loaded.wait()
        completion = await generate(engine, token_ids, sampling, session)
        if update_of(session) == 2:
            sampled.add(session)
            begun.set()
        return completion

    async def load_in_between(engine: TorchEngine, weights: Weights, version: int) -> None:
        if version == 1:
            await begun.wait()
        await load_weights(engine, weights, version)
        if version == 1:
            loaded.set()

    monkeypatch.setattr(TorchEngine, "generate", generate_in_two_halves)
    monkeypatch.setattr(TorchEngine, "load_weights", load_in_between)


def test_an_episode_goes_on_under_newer_weights_and_each_span_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_turns_wait_for_the_next_weights(monkeypatch)
    train_here(tmp_path / "run", staleness=1, steps=2, **{"trainer.learning_rate": 1e-2})
    of_two = [spans for each in played(tmp_path / "run", 2) if len(spans := versions(each)) > 1]
    assert of_two
    assert all(spans == [0] + [1] * (len(spans) - 1) for spans in of_two if spans[0] == 0)
    assert any(spans[0] == 0 for spans in of_two)
    # What was sampled last is compared with the newest weights, though older ones had read what is before.
    assert recorded(tmp_path / "run")[1]["audit/max_logprob_difference"] < 1e-3


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
    read = played(folder, 1)
    cut = [each for each in read if each["stop"] == "cut"]
    assert len(cut) == round(rows[0]["cut_off"] * len(read))
    assert all("3 times the median" in each["error"] and not each["rewards"] for each in cut)
