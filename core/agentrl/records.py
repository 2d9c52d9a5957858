"""Stores trajectories so that people can read them and programs can go on with them.

A gzip file of JSON lines, one trajectory each: the turns as text, outcome and rewards for reading; the token
ids and log-probabilities, exactly, so that a trajectory can be scored or trained on again.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentrl.errors import AgentRLError
from agentrl.files import encode, write_bytes
from agentrl.hosting.codec import action_to_json, observation_to_json, outcome_to_json, task_to_json
from agentrl.types import (
    Action,
    Group,
    Observation,
    Outcome,
    Segment,
    Span,
    Task,
    Trajectory,
    Turn,
)

Json = dict[str, Any]


def save_trajectories(path: Path, groups: Iterable[Group]) -> None:
    """Write the trajectories of `groups` to `path`.

    Raises:
        AgentRLError: the disk is full, or a task holds data that is not JSON.
    """
    buffer = io.BytesIO()
    # Without a time the same trajectories give the same bytes.
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=3, mtime=0) as file:
        for number, group in enumerate(groups):
            for trajectory in group.trajectories:
                file.write(encode(_line(number, trajectory)))
    write_bytes(path, buffer.getvalue(), "trajectories")


def load_trajectories(path: Path) -> list[Trajectory]:
    """Return the trajectories in a file, equal to those that were stored.

    Raises:
        AgentRLError: the file is cut short or damaged; it names the line.
    """
    return [trajectory for _, trajectory in _read(path)]


def load_groups(path: Path) -> list[Group]:
    """Return the groups in a file; raises as `load_trajectories`."""
    groups: dict[int, Group] = {}
    for number, trajectory in _read(path):
        groups.setdefault(number, Group(trajectory.task, [])).trajectories.append(trajectory)
    return list(groups.values())


def _line(group: int, trajectory: Trajectory) -> str:
    try:
        return json.dumps({"group": group, **_pack(trajectory)}, ensure_ascii=False) + "\n"
    except TypeError as error:
        raise AgentRLError(
            f"the trajectory of task {trajectory.task.id!r} cannot be stored: {error}; task data, texts and "
            "metrics must be JSON"
        ) from error


def _read(path: Path) -> Iterator[tuple[int, Trajectory]]:
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                packed = json.loads(line)
                yield packed["group"], _unpack(packed)
                number += 1
    except (EOFError, OSError, zlib.error, ValueError, KeyError, TypeError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise AgentRLError(f"{path} cannot be read after line {number}: {cause}") from error


def _pack(trajectory: Trajectory) -> Json:
    return {
        "task": task_to_json(trajectory.task),
        "seed": trajectory.seed,
        "turns": [
            {"observation": observation_to_json(turn.observation), "action": action_to_json(turn.action)}
            for turn in trajectory.turns
        ],
        "final": observation_to_json(trajectory.final) if trajectory.final else None,
        "stop": trajectory.stop,
        "error": trajectory.error,
        "outcome": outcome_to_json(trajectory.outcome) if trajectory.outcome else None,
        "rewards": {name: float(score) for name, score in trajectory.rewards.items()},
        "reward": float(trajectory.reward),
        "seconds": trajectory.seconds,
        "segments": [_pack_segment(segment) for segment in trajectory.segments],
    }


def _unpack(packed: Json) -> Trajectory:
    return Trajectory(
        task=Task(**packed["task"]),
        seed=packed["seed"],
        turns=[
            Turn(Observation(**turn["observation"]), Action(**turn["action"])) for turn in packed["turns"]
        ],
        final=Observation(**packed["final"]) if packed["final"] else None,
        segments=[_unpack_segment(segment) for segment in packed["segments"]],
        outcome=_unpack_outcome(packed["outcome"]) if packed["outcome"] else None,
        stop=packed["stop"],
        error=packed["error"],
        rewards=packed["rewards"],
        reward=packed["reward"],
        seconds=packed["seconds"],
    )


def _unpack_outcome(packed: Json) -> Outcome:
    texts = {name: tuple(packed.get(name, ())) for name in ("references", "passed", "failed", "tags")}
    return Outcome(packed["success"], packed["answer"], **texts, metrics=packed["metrics"])


def _pack_segment(segment: Segment) -> Json:
    return {
        "token_ids": [int(token) for token in segment.token_ids],
        "spans": [
            {
                "start": span.start,
                "turn": span.turn,
                "version": span.version,
                "temperature": span.temperature,
                "logprobs": [float(logprob) for logprob in span.logprobs],
            }
            for span in segment.spans
        ],
    }


def _unpack_segment(packed: Json) -> Segment:
    return Segment(packed["token_ids"], [Span(**span) for span in packed["spans"]])
