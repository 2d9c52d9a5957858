"""Trajectories on disk: they come back as they were, and what is damaged is not passed over."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from agentrl import (
    Action,
    AgentRLError,
    Group,
    Observation,
    Outcome,
    Segment,
    Span,
    Task,
    Trajectory,
    Turn,
)
from agentrl.records import load_groups, load_trajectories, save_trajectories


def trajectory(name: str = "t") -> Trajectory:
    return Trajectory(
        task=Task(
            name,
            "train",
            {"question": "Wer?", "hops": [1, 2], "nested": {"a": None}},
            "family",
            2,
            {"skill": "mail"},
        ),
        seed=2**61 + 1,
        turns=[Turn(Observation("see ü\u2028\n", state_key="s1"), Action("go", key="g"))],
        final=Observation("end", done=True),
        segments=[
            Segment([1, 2, 3, 4], [Span(1, [-0.1, -1 / 3], 0, 7, 0.5)]),
            Segment([5], [Span(0, [-2e-308], 1)]),
        ],
        outcome=Outcome(True, "Ada", ("Ada", "A."), ("check",), (), {"searches": 2.0}, ("slow", "zoomed")),
        stop="max_turns",
        rewards={"exact_match": 1.0},
        reward=0.1 + 0.2,
        seconds=1.5,
    )


def failed() -> Trajectory:
    return Trajectory(Task("bad"), stop="error", error="env.step at turn 0 raised KeyError: 'x'")


def test_trajectories_come_back_equal(tmp_path: Path) -> None:
    groups = [
        Group(trajectory().task, [trajectory(), failed()]),
        Group(trajectory("u").task, [trajectory("u")]),
    ]
    path = tmp_path / "t.jsonl.gz"
    save_trajectories(path, groups)
    assert load_trajectories(path) == [trajectory(), failed(), trajectory("u")]
    assert [len(group.trajectories) for group in load_groups(path)] == [2, 1]
    row = json.loads(gzip.decompress(path.read_bytes()).splitlines()[0])
    assert row["turns"][0]["action"]["text"] == "go"
    before = path.read_bytes()
    save_trajectories(path, groups)
    assert path.read_bytes() == before


def test_trajectories_of_older_runs_have_neither_labels_nor_tags(tmp_path: Path) -> None:
    save_trajectories(tmp_path / "new.jsonl.gz", [Group(trajectory().task, [trajectory()])])
    with gzip.open(tmp_path / "new.jsonl.gz", "rt") as file:
        line = json.loads(file.read())
    del line["task"]["labels"], line["outcome"]["tags"]
    with gzip.open(tmp_path / "old.jsonl.gz", "wt") as file:
        file.write(json.dumps(line) + "\n")
    (found,) = load_trajectories(tmp_path / "old.jsonl.gz")
    assert found.outcome is not None
    assert (found.task.labels, found.outcome.tags) == ({}, ())
    assert found.outcome.passed == ("check",)


def test_a_trajectory_that_is_not_json_names_its_task(tmp_path: Path) -> None:
    odd = replace(trajectory(), task=Task("odd", data={"when": object()}))
    with pytest.raises(
        AgentRLError, match=r"the trajectory of task 'odd' cannot be stored: .*not JSON serializable"
    ):
        save_trajectories(tmp_path / "t.jsonl.gz", [Group(odd.task, [odd])])
    assert list(tmp_path.glob("*t.jsonl*")) == []


def test_a_damaged_file_of_trajectories_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    save_trajectories(path, [Group(trajectory().task, [trajectory()] * 50)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(AgentRLError, match=r"t.jsonl.gz cannot be read after line \d+: EOFError"):
        load_trajectories(path)
    path.write_bytes(gzip.compress(b'{"group": 0}\n'))
    with pytest.raises(AgentRLError, match=r"cannot be read after line 0: KeyError: 'task'"):
        load_trajectories(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(AgentRLError, match=r"cannot be read after line 0"):
        load_trajectories(path)
