"""Judging stored trajectories anew: what is judged, what is kept, what is shown, and what is refused."""

import asyncio
import importlib
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentrl import AgentRLError, Group, Outcome, Reward, Task, Trajectory, Unjudged, UsageError
from agentrl.cli import app
from agentrl.comparison import Comparison, compare, share_that_differ
from agentrl.files import read_lines
from agentrl.judging import WeightedReward
from agentrl.records import save_trajectories
from agentrl.rescoring import Source, find_sources, place_of, rescore
from agentrl.testing import make_trajectory


class Scored(Reward):
    """Scores with what a function returns or raises, and counts."""

    def __init__(self, score: Callable[[Trajectory], float]) -> None:
        super().__init__()
        self._score, self.count = score, 0

    async def score(self, trajectory: Trajectory) -> float:
        self.count += 1
        return self._score(trajectory)


def answered(answer: str, reward: float, **more: Any) -> Trajectory:
    trajectory = make_trajectory(answer=answer, success=answer == "Paris", reward=reward, **more)
    trajectory.rewards = {"format": reward}
    return trajectory


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run that has stored an update and an evaluation."""
    folder = tmp_path / "run"
    groups = [
        Group(Task("a"), [answered("Paris", 1.0), answered("Rome", 1.0)]),
        Group(Task("b"), [answered("Rome", 0.5), Trajectory(Task("b"), stop="error", error="it crashed")]),
    ]
    folder.mkdir()
    (folder / "run.yaml").write_text("env: deepsearch\nrewards:\n  format: {weight: 2.0, thought: hm}\n")
    save_trajectories(folder / "trajectories" / "step-000001.jsonl.gz", groups)
    save_trajectories(folder / "trajectories" / "eval-000000.jsonl.gz", groups[:1])
    return folder


def command(*words: object) -> Any:
    arguments = ["rescore", *map(str, words)]
    return CliRunner().invoke(app(arguments), arguments, env={"COLUMNS": "150"})


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.gz")}


def scored(run: Path, score: Callable[[Trajectory], float], weight: float = 1.0) -> tuple[Scored, Path, Any]:
    reward = Scored(score)
    rewards = [WeightedReward("other", reward, weight)]
    place = place_of(run, rewards)
    return reward, place, asyncio.run(rescore(find_sources(run), rewards, place))


def test_every_trajectory_that_did_not_fail_is_judged_and_nothing_stored_is_touched(run: Path) -> None:
    before = hashes(run)
    reward, place, found = scored(run, lambda trajectory: 0.25, 2.0)
    assert list(found) == ["eval-000000", "step-000001"]
    assert reward.count == 5
    rows = read_lines(place / "step-000001.jsonl")
    assert rows == found["step-000001"]
    assert rows[0]["old"] == {"reward": 1.0, "format": 1.0}
    assert rows[0]["new"] == {"reward": 0.5, "other": 0.25}
    assert (rows[0]["group"], rows[2]["group"], rows[2]["task"]) == (0, 1, "france")
    assert (rows[3]["failed"], rows[3]["new"]) == (True, None)
    assert hashes(run) == before
    index = json.loads((place / "rescored.json").read_text())
    assert (index["rewards"]["other"]["weight"], index["rewards"]["other"]["options"]) == (2.0, {})


def test_what_is_judged_is_not_judged_again_unless_the_trajectories_are_others(run: Path) -> None:
    _, _, first = scored(run, lambda trajectory: 0.25)
    reward, _, second = scored(run, lambda trajectory: 0.25)
    assert reward.count == 0
    assert first == second
    groups = [Group(Task("c"), [answered("Paris", 1.0)])]
    save_trajectories(run / "trajectories" / "eval-000000.jsonl.gz", groups)
    reward, _, third = scored(run, lambda trajectory: 0.25)
    assert reward.count == 1
    assert len(third["eval-000000"]) == 1


def test_what_was_interrupted_goes_on(run: Path) -> None:
    def until_rome(trajectory: Trajectory) -> float:
        if trajectory.reward == 0.0 and trajectory.outcome and len(judged) == 2:
            raise ValueError("stop here")
        judged.append(trajectory)
        return 1.0

    judged: list[Trajectory] = []
    with pytest.raises(AgentRLError, match=r"reward 'other' on task .* raised ValueError: stop here"):
        scored(run, until_rome)
    reward, _, found = scored(run, lambda trajectory: 1.0)
    assert reward.count == 3, "the evaluation was complete"
    assert len(found["step-000001"]) == 4


def test_what_could_not_be_judged_is_tried_again(run: Path) -> None:
    def unsure(trajectory: Trajectory) -> float:
        if trajectory.outcome == Outcome(False, "Rome", ("Paris",), ("answered",), (), {"searches": 2.0}):
            raise Unjudged("nobody answers")
        return 1.0

    _, _, found = scored(run, unsure)
    rows = found["eval-000000"]
    assert [row["new"] for row in rows] == [{"reward": 1.0, "other": 1.0}, None]
    assert rows[1]["unjudged"].endswith("nobody answers")
    reward, _, found = scored(run, lambda trajectory: 1.0)
    assert reward.count == 5
    assert not any("unjudged" in row for row in found["eval-000000"])


def test_what_the_run_could_not_judge_is_judged(run: Path) -> None:
    unjudged = answered("Paris", 0.0)
    unjudged.error = "the reward 'format' could not judge it"
    save_trajectories(run / "trajectories" / "step-000002.jsonl.gz", [Group(Task("c"), [unjudged])])
    _, _, found = scored(run, lambda trajectory: 1.0)
    [row] = found["step-000002"]
    assert (row["failed"], row["new"]) == (False, {"reward": 1.0, "other": 1.0})


def test_a_metric_that_could_not_be_had_is_tried_again_too(run: Path) -> None:
    def unsure(trajectory: Trajectory) -> float:
        raise Unjudged("nobody answers")

    _, _, found = scored(run, unsure, weight=0.0)
    assert found["eval-000000"][0]["new"] == {"reward": 0.0}
    assert found["eval-000000"][0]["unjudged"] == "no score of other"
    reward, _, found = scored(run, lambda trajectory: 1.0, weight=0.0)
    assert reward.count == 5
    assert found["eval-000000"][0]["new"] == {"reward": 0.0, "other": 1.0}


def test_other_weights_go_elsewhere(run: Path) -> None:
    places = {place_of(run, [WeightedReward("x", Scored(lambda t: 1.0), weight)]) for weight in (1.0, 2.0)}
    assert len(places) == 2


def test_a_reward_that_was_edited_goes_elsewhere(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run / "edited_reward.py"
    monkeypatch.syspath_prepend(run)
    file.write_text(
        "import agentrl\nclass Edited(agentrl.Reward):\n    async def score(self, trajectory): ...\n"
    )
    edited: Any = importlib.import_module("edited_reward")
    rewards = [WeightedReward("edited", edited.Edited(), 1.0)]
    before = place_of(run, rewards)
    file.write_text(file.read_text() + "# better\n")
    assert place_of(run, rewards) != before


def row(group: int, old: float, new: float | None, success: float = 0.0, **more: float) -> dict[str, Any]:
    judged = None if new is None else {"reward": new, "f1": new}
    return {"file": "a", "group": group, "success": success, "old": {"reward": old, **more}, "new": judged}


def test_old_and_new_are_compared_reward_by_reward() -> None:
    rows = [row(0, 0.0, 1.0, 1.0, gone=1.0), row(0, 1.0, 0.0, 0.0, gone=1.0), row(1, 1.0, 1.0, 1.0, gone=1.0)]
    total, gone, f1 = compare([*rows, row(1, 9.0, None)])
    assert (total.name, total.old, total.new) == ("reward", pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (total.changed, total.alike) == (pytest.approx(2 / 3), pytest.approx(-0.5))
    assert total.with_success == pytest.approx(1)
    assert gone == Comparison("gone", 1.0, None, None, None, None)
    assert (f1.name, f1.old, f1.changed) == ("f1", None, None)
    assert share_that_differ(rows, "old") == share_that_differ(rows, "new") == 0.5
    assert compare([]) == []
    assert share_that_differ([], "old") is None


def test_constant_scores_have_no_correlation() -> None:
    (total, _) = compare([row(0, 1.0, 1.0), row(0, 1.0, 1.0)])
    assert (total.changed, total.alike, total.with_success) == (0.0, None, None)


def test_the_command_shows_old_beside_new(run: Path) -> None:
    done = command(run, "--reward", "exact_match", "--reward", "f1:0.5")
    assert done.exit_code == 0, done.output
    assert "training: 4 trajectories, 1 of them failed and left out" in done.output
    assert "held-out tasks: 2 trajectories" in done.output
    lines = [line.split() for line in done.output.splitlines() if line.strip()]
    assert ["weighted", "sum", "0.833", "0.500", "1.000", "0.500", "1.000"] in lines
    assert ["exact_match", "-", "0.333", "-", "-", "1.000"] in lines
    assert ["format", "0.833", "-", "-", "-", "-"] in lines
    assert "teach: 0.000 before, 0.500 now" in done.output
    assert command(run, "--reward", "exact_match", "--reward", "f1:0.5").output == done.output


def test_without_a_reward_it_is_those_of_the_run(run: Path) -> None:
    done = command(run, "--files", "eval-*")
    assert done.exit_code == 0, done.output
    (index,) = run.rglob("rescored.json")
    (chosen,) = json.loads(index.read_text())["rewards"].items()
    assert chosen[0] == "format"
    assert (chosen[1]["weight"], chosen[1]["options"]["thought"]) == (2.0, "hm")
    assert not list(run.rglob("step-*.jsonl"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reward", "exactmatch"], "no reward 'exactmatch'; did you mean 'exact_match'?"),
        (["--reward", "f1:much"], "the weight 'much' is not a number"),
        (["--reward", "f1", "--files", "test-*"], "'test-*'; there are eval-000000 to step-000001"),
        (["--reward", "format", "--set", "rewards.format.thoughts=x"], "mean 'rewards.format.thought'?"),
        (["--reward", "format", "--set", "rewards.formt.thought=x"], "not for 'rewards.formt'; did you mean"),
        (["--reward", "format", "--set", "steps=3"], "not for 'steps'; there are: format"),
        (["--reward", "checks", "--set", "rewards.checks.metric=asked"], "the env measures no 'asked'"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(run: Path, words: list[str], message: str) -> None:
    done = command(run, *words)
    assert done.exit_code in (1, 2)
    assert message in done.output


def test_a_folder_without_a_run_or_trajectories_is_refused(run: Path, tmp_path: Path) -> None:
    assert "there is no run in" in command(tmp_path, "--reward", "f1").output
    for path in (run / "trajectories").iterdir():
        path.unlink()
    assert "has stored no trajectories" in command(run, "--reward", "f1").output


def test_answers_without_a_right_one_cannot_be_compared(run: Path) -> None:
    path = run / "trajectories" / "step-000001.jsonl.gz"
    save_trajectories(path, [Group(Task("a"), [answered("Paris", 1.0, references=())])])
    done = command(run, "--reward", "f1", "--files", "step-*")
    assert done.exit_code == 2
    assert "the reward 'f1' compares answers with right ones, and the env has given none" in done.output


def test_a_damaged_file_is_named(run: Path) -> None:
    path = run / "trajectories" / "step-000001.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(AgentRLError, match=r"step-000001.jsonl.gz cannot be read after line"):
        asyncio.run(rescore([Source(path)], [], place_of(run, [])))


def test_the_run_may_not_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no run.yaml"):
        find_sources(tmp_path)
